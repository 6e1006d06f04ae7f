"""The ring holds the newest transitions, samples them evenly, and is written in place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.replay import Priorities, Prioritized, Replay, Uniform
from parnassus.schedules import Linear, Progress


def fill(replay: Replay, first: int, count: int) -> Replay:
    """Add `count` transitions numbered from `first`, as a trajectory [count, 1]."""
    rows = {"x": jnp.arange(first, first + count)[:, None], "y": jnp.ones((count, 1, 2))}
    return replay.add(rows)


EXAMPLE = {"x": jnp.int32(0), "y": jnp.zeros(2)}


def test_the_newest_stay() -> None:
    replay = Replay.create(EXAMPLE, 5)
    assert (replay.capacity, replay.size) == (5, 0)
    replay = fill(replay, 1, 3)
    assert replay.size == 3
    replay = fill(replay, 4, 4)
    assert replay.size == 5
    assert sorted(replay.storage["x"].tolist()) == [3, 4, 5, 6, 7]


def test_it_stays_full_for_ever() -> None:
    replay = Replay.create(EXAMPLE, 4)
    for i in range(50):
        replay = fill(replay, i, 1)
        assert replay.size == min(i + 1, 4)
        assert sorted(replay.storage["x"].tolist()[: i + 1]) == list(range(max(0, i - 3), i + 1))
    assert replay.added < 8  # bounded: it never overflows


def test_trajectories_keep_their_rows_together() -> None:
    replay = Replay.create({"a": jnp.zeros(()), "b": jnp.zeros(())}, 6)
    a = jnp.arange(6.0).reshape(3, 2)
    replay = replay.add({"a": a, "b": 10 * a})
    np.testing.assert_array_equal(replay.storage["b"], 10 * replay.storage["a"])


def test_samples_are_uniform_over_what_is_there() -> None:
    replay = fill(Replay.create(EXAMPLE, 100), 0, 10)
    drawn = np.asarray(replay.sample(jax.random.key(0), 20_000)["x"])
    counts = np.bincount(drawn, minlength=100)
    assert counts[10:].sum() == 0
    chi_square = ((counts[:10] - 2000) ** 2 / 2000).sum()
    assert chi_square < 27.9  # 99.9 % of chi^2 with 9 degrees of freedom


def test_a_trajectory_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="a trajectory of 6 transitions does not fit a replay of 5"):
        fill(Replay.create(EXAMPLE, 5), 0, 6)


def test_adding_does_not_copy_the_ring() -> None:
    """The compiled program needs no temporary memory of the ring's size: the ring is updated where it is."""
    replay = Replay.create({"x": jnp.zeros(64)}, 100_000)
    row = {"x": jnp.ones((1, 1, 64))}
    add = jax.jit(lambda replay, row: replay.add(row), donate_argnums=0)
    memory = add.lower(replay, row).compile().memory_analysis()
    ring = 100_000 * 64 * 4
    assert memory.temp_size_in_bytes < ring / 100
    assert memory.alias_size_in_bytes >= ring

    def many(replay: Replay) -> Replay:
        return jax.lax.fori_loop(0, 10, lambda i, r: r.add(row), replay)

    memory = jax.jit(many, donate_argnums=0).lower(replay).compile().memory_analysis()
    assert memory.temp_size_in_bytes < ring / 100


def test_priorities_are_summed_exactly() -> None:
    """After many changes, every node is the sum of its children, and the root of all."""
    rng, state = np.random.default_rng(0), Priorities.create(37)
    assert len(state.sums) == 128
    known = np.zeros(37)
    put = jax.jit(Priorities.put)
    for _ in range(200):
        rows = rng.choice(37, 5, replace=False)
        known[rows] = rng.exponential(size=5)
        state = put(state, jnp.asarray(rows), jnp.asarray(known[rows], jnp.float32))
    sums = np.asarray(state.sums)
    np.testing.assert_allclose(sums[64 : 64 + 37], known, rtol=1e-6)
    for node in range(1, 64):
        assert sums[node] == np.float32(sums[2 * node] + sums[2 * node + 1])
    assert sums[1] == pytest.approx(known.sum(), rel=1e-5)


def test_rows_given_twice_count_once() -> None:
    state = Priorities.create(4).put(jnp.array([2, 2, 1]), jnp.array([3.0, 3.0, 1.0]))
    assert state.sums[1] == 4.0


def test_prioritised_rows_come_in_proportion() -> None:
    """A chi-square test of how often each is drawn; rows without a priority never are."""
    priorities = np.array([1.0, 0.0, 4.0, 2.0, 0.5, 0.0, 3.0])
    state = Priorities.create(7).put(jnp.arange(7), jnp.asarray(priorities, jnp.float32))
    # One at a time: the rows of one minibatch are drawn from different shares, so their counts vary less.
    draw = jax.jit(jax.vmap(lambda key: state.draw(key, 1)))
    rows, probability = draw(jax.random.split(jax.random.key(1), 42_000))
    wanted = priorities / priorities.sum()
    counts = np.bincount(rows[:, 0], minlength=7)
    assert counts[[1, 5]].sum() == 0
    present = wanted > 0
    chi_square = ((counts - 42_000 * wanted)[present] ** 2 / (42_000 * wanted[present])).sum()
    assert chi_square < 18.5  # 99.9 % of chi^2 with 4 degrees of freedom
    np.testing.assert_allclose(probability[:, 0], wanted[rows[:, 0]], rtol=1e-5)


def test_a_minibatch_has_one_row_from_each_share() -> None:
    state = Priorities.create(8).put(jnp.arange(8), jnp.ones(8))
    rows, _ = state.draw(jax.random.key(0), 8)
    assert rows.tolist() == list(range(8))


def test_importance_weights_undo_the_choice() -> None:
    """With beta 1 the weighted mean of anything is that of uniform sampling, up to the common factor."""
    method = Prioritized(exponent=1.0, correction=1.0, epsilon=0.0)
    replay = fill(Replay.create(EXAMPLE, 16), 0, 5)
    state = method.added(method.start(16), jnp.arange(5))
    state = method.learned(state, jnp.arange(5), jnp.array([-1.0, 2.0, 3.0, 4.0, 5.0]))
    progress = Progress.start()
    rows, weight = method.draw(state, replay, jax.random.key(0), 3_000, progress)
    assert weight.max() == 1.0
    x = np.asarray(replay[rows]["x"])
    np.testing.assert_allclose(weight, np.asarray([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])[x], rtol=1e-5)
    assert np.average(x, weights=weight) == pytest.approx(2.0, abs=0.02)
    _, weight = Prioritized(1.0, Linear(0.0, 1.0)).draw(state, replay, jax.random.key(0), 3, progress)
    np.testing.assert_allclose(weight, 1.0)  # beta is still 0


def test_new_transitions_have_the_largest_priority_so_far() -> None:
    method = Prioritized(exponent=1.0, epsilon=0.0)
    state = method.added(method.start(8), jnp.arange(2))
    assert state.sums[8:12].tolist() == [1.0, 1.0, 0.0, 0.0]
    state = method.learned(state, jnp.array([0]), jnp.array([7.0]))
    state = method.learned(state, jnp.array([0]), jnp.array([0.5]))
    assert method.added(state, jnp.array([2])).sums[8:12].tolist() == [0.5, 1.0, 7.0, 0.0]


def test_uniform_rows_weigh_the_same() -> None:
    replay = fill(Replay.create(EXAMPLE, 100), 0, 10)
    rows, weight = Uniform().draw(None, replay, jax.random.key(0), 50, Progress.start())
    assert rows.max() < 10 and (weight == 1.0).all()
