"""A table on which maximum entropy and an entropy bonus want different policies, solved exactly and by learning."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parnassus import training
from parnassus.collect import ScanCollector
from parnassus.envs.mdp import FiniteMDP
from parnassus.networks import Network

GAMMA, ALPHA = 0.9, 0.5
# (state, action) -> next state, reward. The first state leads, without reward, to a narrow one, where one action is
# good and the other dear, or to a wide one, where both actions are nearly as good; both lead back.
NEXT = np.array([[1, 2], [0, 0], [0, 0]])
PAYS = np.array([[0.0, 0.0], [1.0, -5.0], [0.8, 0.8]])


def solve(policy: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Q and V of the rewards r - alpha log pi, exactly."""
    reward = (policy * (PAYS - alpha * np.log(policy))).sum(1)
    move = np.zeros((3, 3))
    for s in range(3):
        for a in range(2):
            move[s, NEXT[s, a]] += policy[s, a]
    v = np.linalg.solve(np.eye(3) - GAMMA * move, reward)
    return PAYS + GAMMA * v[NEXT], v


def softmax(q: np.ndarray) -> np.ndarray:
    e = np.exp((q - q.max(1, keepdims=True)) / ALPHA)
    return e / e.sum(1, keepdims=True)


def fixed_point(alpha: float) -> np.ndarray:
    """softmax(Q / ALPHA), with the Q of rewards that hold (alpha = ALPHA) or do not hold (0) the entropy."""
    policy = np.full((3, 2), 0.5)
    for _ in range(500):
        policy = softmax(solve(policy, alpha)[0])
    return policy


def learn(algorithm: Any, steps: int) -> Any:
    """The learner after so many steps in 64 environments, which begin anywhere and never end."""
    mdp = FiniteMDP.create(NEXT[..., None], np.ones((3, 2, 1)), PAYS[..., None], np.zeros((3, 2, 1)), np.ones(3) / 3)
    collector = ScanCollector(mdp, 64)
    state = training.init(algorithm, collector, jax.random.key(0), steps)
    for chunk in training.train(algorithm, collector, state, steps):
        state = chunk.state
    return state.learner


def check(policy: Network, value: Network, encoder: Any, temperature: float) -> None:
    """The policy is the fixed point, and its values are soft with a temperature and plain without one."""
    observation, expected = encoder(jnp.arange(3)), fixed_point(temperature)
    second = jnp.exp(policy(observation).log_prob(jnp.ones(3, jnp.int32)))
    np.testing.assert_allclose(second, expected[:, 1], atol=0.04)
    np.testing.assert_allclose(value(observation), solve(expected, temperature)[1], atol=0.2)
