"""Dyna-Q: without plans it is Q-learning; plans repeat what was seen; on the maze they save steps."""

import jax
import numpy as np
import pytest

from parnassus import training
from parnassus.algorithms.dyna_q import DynaQ
from parnassus.algorithms.q_learning import QLearning
from parnassus.collect import ScanCollector
from parnassus.envs.textbook import dyna_maze
from tests.tabular_streams import FIRST, learned, stream


def test_without_plans_it_is_q_learning() -> None:
    steps = stream(1)
    found = learned(DynaQ(0.3, 0, discount=0.9), steps).q
    np.testing.assert_allclose(found, learned(QLearning(0.3, discount=0.9), steps).q, rtol=1e-5, atol=1e-6)


def test_plans_go_to_the_values_of_the_model() -> None:
    """After one look at each of a world's deterministic steps, planning alone solves it."""
    steps = [step._replace(terminated=False, truncated=False) for step in stream(2, 300)]
    learner = learned(DynaQ(0.5, 200, discount=0.8), steps)
    model, q = learner.model, np.asarray(learner.q)
    seen = np.asarray(model.last_seen) >= 0
    target = np.asarray(model.reward) + 0.8 * q[np.asarray(model.next_state)].max(-1)
    assert seen.all() and int(model.count) == seen.sum()
    np.testing.assert_allclose(q, target, atol=0.02)


def test_plus_pays_for_what_was_long_not_tried() -> None:
    """In the imagination only, and for actions that were never taken as well."""
    algorithm = DynaQ(plus=True, bonus=0.1)
    model = learned(algorithm, stream(3, 30)).model
    imagined = algorithm.imagine(model, jax.random.key(0), 2_000)
    here = imagined.observation, imagined.action
    elapsed = int(model.time) - 1 - np.maximum(np.asarray(model.last_seen)[here], 0)
    np.testing.assert_allclose(imagined.reward, np.asarray(model.reward)[here] + 0.1 * np.sqrt(elapsed), rtol=1e-5)
    plain = DynaQ().imagine(model, jax.random.key(0), 2_000)
    pairs = set((np.asarray(plain.observation) * 3 + np.asarray(plain.action)).tolist())
    assert pairs == set(model.order[: int(model.count)].tolist())
    np.testing.assert_allclose(plain.reward, np.asarray(model.reward)[plain.observation, plain.action])
    assert int(plain.observation.min()) >= 0 and FIRST > 0  # the model counts from 0


@pytest.mark.reuses_keys
def test_plans_save_steps() -> None:
    """Example 8.1: episodes within 3,000 steps, 16 seeds."""
    count = {}
    for num_plans in (0, 5, 50):
        algorithm, collector = DynaQ(num_plans=num_plans), ScanCollector(dyna_maze(), 1)
        state = training.init(algorithm, collector, jax.random.split(jax.random.key(0), 16), 3_000)
        (chunk,) = training.train(algorithm, collector, state, 3_000, chunk_iterations=3_000)
        count[num_plans] = float(np.mean(chunk.metrics["episode/count"]))
    assert count[50] > 1.05 * count[5] > 2 * count[0], count
