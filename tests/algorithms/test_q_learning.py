"""Watkins' update by hand, in the order of time, and the agreement with dynamic programming."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus import training
from parnassus.algorithms.q_learning import QLearning
from parnassus.collect import ScanCollector
from parnassus.envs.mdp import FiniteMDP
from parnassus.schedules import Linear
from parnassus.types import Spec, Transition


def test_two_updates_by_hand() -> None:
    algorithm = QLearning(learning_rate=0.5, discount=0.8)
    spec = Spec(spaces.Discrete(3, start=10), spaces.Discrete(2), 1)
    learner = algorithm.init(jax.random.key(0), spec)
    learner = learner._replace(q=jnp.array([[1.0, 2.0], [3.0, 0.0], [0.0, 0.0]]))
    column = lambda *x: jnp.array(x)[:, None]  # noqa: E731
    steps = Transition(
        observation=column(10, 11),
        action=column(0, 1),
        reward=column(1.0, 5.0),
        next_observation=column(11, 10),
        terminated=column(False, True),
        truncated=column(False, False),
        extras={},
    )
    after, _ = algorithm.learn(learner, steps, jax.random.key(0))
    # Q(0, 0) = 1 + 0.5 (1 + 0.8 * 3 - 1) = 2.2; Q(1, 1) = 0 + 0.5 (5 - 0) = 2.5: nothing follows a terminal state.
    np.testing.assert_allclose(after.q, [[2.2, 2.0], [3.0, 2.5], [0.0, 0.0]], rtol=1e-6)


def test_a_time_limit_bootstraps() -> None:
    algorithm = QLearning(learning_rate=1.0, discount=0.5)
    learner = algorithm.init(jax.random.key(0), Spec(spaces.Discrete(2), spaces.Discrete(1), 1))
    learner = learner._replace(q=jnp.array([[0.0], [10.0]]))
    one, yes, no = jnp.ones((1, 1), jnp.int32), jnp.ones((1, 1), bool), jnp.zeros((1, 1), bool)
    steps = Transition(0 * one, 0 * one, 1.0 * one, one, no, yes, {})
    after, _ = algorithm.learn(learner, steps, jax.random.key(0))
    assert after.q[0, 0] == 6.0


@pytest.mark.slow
def test_it_finds_the_values_of_dynamic_programming() -> None:
    """A random MDP of 6 states and 3 actions; Q* by value iteration in NumPy."""
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(6), (6, 3))
    reward = rng.normal(size=(6, 3, 6))
    q, gamma = np.zeros((6, 3)), 0.5
    for _ in range(200):
        q = (transition * (reward + gamma * q.max(-1))).sum(-1)
    env = FiniteMDP.from_dense(transition, reward, np.ones(6) / 6, max_steps=20)
    algorithm = QLearning(learning_rate=Linear(0.05, 0.0), discount=gamma, num_steps=16, epsilon=1.0)
    collector = ScanCollector(env, 16)
    state = training.init(algorithm, collector, jax.random.key(0), 2_000_000)
    *_, chunk = training.train(algorithm, collector, state, 2_000_000)
    np.testing.assert_allclose(chunk.state.learner.q, q, atol=0.1)  # five standard errors
