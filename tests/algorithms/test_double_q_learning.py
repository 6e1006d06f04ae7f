"""Double Q-learning: its update with the coins that were tossed; where Q-learning is led astray, it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import training
from parnassus.algorithms.double_q_learning import DoubleQLearning
from parnassus.algorithms.q_learning import QLearning
from parnassus.collect import ScanCollector
from parnassus.envs.mdp import FiniteMDP
from tests.tabular_streams import ACTIONS, STATES, learned, stream

ALPHA, GAMMA = 0.3, 0.9


def test_it_is_the_papers_update() -> None:
    steps, q = stream(9), np.zeros((2, STATES, ACTIONS))
    coins = [int(jax.random.bernoulli(jax.random.key(t), shape=(1, 1))[0, 0]) for t in range(len(steps))]
    assert 0.3 < np.mean(coins) < 0.7
    for step, i in zip(steps, coins, strict=True):
        best = int(np.argmax(q[i, step.after]))
        aim = step.r + GAMMA * (not step.terminated) * q[1 - i, step.after, best]
        q[i, step.s, step.a] += ALPHA * (aim - q[i, step.s, step.a])
    np.testing.assert_allclose(learned(DoubleQLearning(ALPHA, discount=GAMMA), steps).q, q, rtol=1e-4, atol=1e-5)


def maximization_bias() -> FiniteMDP:
    """Example 6.7: from A, right ends with 0, left leads to B, whose ten actions end with N(-0.1, 1) (here +-1)."""
    next_state, probability = np.zeros((2, 10, 2), int), np.tile([0.5, 0.5], (2, 10, 1))
    reward, over = np.zeros((2, 10, 2)), np.ones((2, 10, 2), bool)
    next_state[0, 0], over[0, 0] = 1, False
    reward[1] = [-1.1, 0.9]
    return FiniteMDP.create(next_state, probability, reward, over, [1.0, 0.0])


@pytest.mark.reuses_keys
def test_noise_leads_it_less_astray() -> None:
    """How often left is taken from A within 2,000 steps of 64 seeds: the best is epsilon times a tenth."""

    def share(algorithm: object) -> float:
        collector = ScanCollector(maximization_bias(), 1)
        state = training.init(algorithm, collector, jax.random.split(jax.random.key(0), 64), 600)
        lengths = []
        for chunk in training.train(algorithm, collector, state, 600, chunk_iterations=600):
            lengths.append(np.asarray(chunk.metrics["episode/length"]))  # 1 for right, 2 for left
        return float(np.mean(lengths) - 1)

    plain, double = share(QLearning(0.1, discount=1.0, epsilon=0.1)), share(DoubleQLearning(0.1, discount=1.0))
    assert double < 0.75 * plain and jnp.isfinite(double)
