"""A learner in shared memory: there and back, steps that add up, and how many segments are left."""

import multiprocessing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parnassus as pa
from parnassus.algorithms.a3c import A3C
from parnassus.distributed.shared import Layout, Tickets, layout_of
from tests.distributed.shared_learners import TINY, probe_spec, same, shared_learner


def test_a_learner_comes_back_from_the_vector_bit_for_bit():
    algorithm = A3C(num_steps=4, hidden_sizes=(4,), normalize_observations=True, normalize_rewards=True)
    learner, shared = shared_learner(algorithm)
    assert same(shared.load(), learner)
    assert shared.layout.parameters == sum(leaf.size for leaf in jax.tree.leaves(learner.networks))
    assert shared.layout.counters == 2  # steps taken and planned


def test_steps_of_two_workers_that_read_the_same_add_up_and_statistics_do_not():
    learner, shared = shared_learner()

    def step(words, by):
        one = shared.layout.unpack(words)
        networks = jax.tree.map(lambda x: x + by, one.networks)
        optimizer = jax.tree.map(lambda x: 0.0 * x + by, one.optimizer)
        progress = one.progress.advance(jnp.zeros((4, 1)))
        return np.asarray(shared.layout.pack(one._replace(networks=networks, optimizer=optimizer, progress=progress)))

    before = shared.words.copy()
    shared.add(before, step(before, 1.0))
    shared.add(before, step(before, 2.0))  # has not seen the first
    after = shared.load()
    for old, new in zip(jax.tree.leaves(learner.networks), jax.tree.leaves(after.networks), strict=True):
        np.testing.assert_allclose(new, old + 3.0, rtol=1e-6)
    assert all((np.asarray(leaf) == 2.0).all() for leaf in jax.tree.leaves(after.optimizer))
    assert int(after.progress.steps) == 8


def test_a_lone_step_is_stored_exactly():
    _, shared = shared_learner()
    before = shared.words.copy()
    after = before.copy()
    after[: shared.layout.parameters] = np.float32(1e-8).view(np.int32)  # old + (new - old) would round this away
    shared.add(before, after)
    np.testing.assert_array_equal(shared.words, after)


def test_the_layout_is_known_before_there_is_a_learner():
    _, shared = shared_learner()
    assert layout_of(TINY, probe_spec()) == shared.layout


def test_what_cannot_be_shared_is_refused():
    learner = {"wide": jnp.zeros(2), "small": jnp.zeros(2, jnp.uint8)}
    with pytest.raises(pa.BadInput, match="workers share numbers of type float32 and int32, not uint8"):
        Layout.of(TINY, learner)


def test_as_many_tickets_are_taken_as_were_put():
    tickets = Tickets(multiprocessing)
    assert not tickets.take()
    tickets.put(2)
    assert [tickets.take() for _ in range(4)] == [True, True, False, False]
    tickets.put(5)
    tickets.put(0)
    assert not tickets.take()
