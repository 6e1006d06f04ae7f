"""Monte Carlo control: means of returns counted by hand; exploring starts; the best policy of a grid world."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import dynamic_programming as dp
from parnassus import training
from parnassus.algorithms.monte_carlo_control import MonteCarloControl
from parnassus.collect import ScanCollector
from parnassus.envs.textbook import grid_world_4x4
from tests.tabular_streams import ACTIONS, FIRST, SPEC, STATES, episodes, learned, stream

GAMMA = 0.9


@pytest.mark.parametrize("kind", ["first", "every"])
@pytest.mark.parametrize("rate", [None, 0.1])
@pytest.mark.parametrize("num_steps", [1, 7, 120])
def test_values_are_means_of_returns(kind: str, rate: float | None, num_steps: int) -> None:
    steps, q, count = stream(1), np.zeros((STATES, ACTIONS)), np.zeros((STATES, ACTIONS))
    for episode in episodes(steps):
        returns = np.zeros(len(episode) + 1)
        for t in range(len(episode) - 1, -1, -1):
            returns[t] = episode[t].r + GAMMA * returns[t + 1]
        pairs = [(step.s, step.a) for step in episode]
        for t, pair in enumerate(pairs):
            if kind == "every" or pair not in pairs[:t]:
                count[pair] += 1
                q[pair] += (1 / count[pair] if rate is None else rate) * (returns[t] - q[pair])
    algorithm = MonteCarloControl(kind, learning_rate=rate, num_steps=num_steps, longest=40, discount=GAMMA)  # type: ignore[arg-type]
    np.testing.assert_allclose(learned(algorithm, steps, num_steps).q, q, rtol=1e-3, atol=1e-4)


def test_exploring_starts_explore_the_first_action_only() -> None:
    algorithm = MonteCarloControl(exploring_starts=True)
    learner = algorithm.init(jax.random.key(0), SPEC)
    behavior = algorithm.behavior(learner._replace(q=learner.q.at[:, 1].set(1.0)))
    states = jnp.full(2_000, FIRST)
    for began, expected in ((0, [1 / 3] * 3), (1, [0, 1, 0])):
        action, memory, _ = algorithm.act(behavior, jnp.full(2_000, began), states, jax.random.key(1), True)
        share = np.bincount(np.asarray(action), minlength=3) / 2_000
        np.testing.assert_allclose(share, expected, atol=0.05)
        assert (memory == 1).all()
    action, _, _ = algorithm.act(behavior, jnp.zeros(2_000, int), states, jax.random.key(1), False)
    assert (action == 1).all()


@pytest.mark.parametrize("exploring_starts", [False, True])
def test_it_finds_the_best_policy(exploring_starts: bool) -> None:
    mdp = dataclasses.replace(grid_world_4x4(), max_steps=30)  # a greedy policy may walk in circles
    algorithm = MonteCarloControl(
        exploring_starts=exploring_starts, num_steps=32, longest=100, discount=0.9, learning_rate=0.05, epsilon=0.2
    )
    collector = ScanCollector(mdp, 16)
    state = training.init(algorithm, collector, jax.random.key(0), 200_000)
    for chunk in training.train(algorithm, collector, state, 200_000):  # noqa: B007
        pass
    policy = np.asarray(chunk.state.learner.q).argmax(-1)
    best = dp.value_iteration(mdp, 0.9).v
    np.testing.assert_allclose(dp.evaluate(mdp, policy, 0.9).v, best, atol=0.1)
