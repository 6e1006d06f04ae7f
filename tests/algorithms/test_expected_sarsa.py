"""Expected SARSA: the book's update, step by step; with a greedy target it is Q-learning."""

import numpy as np
import pytest

from parnassus.algorithms.expected_sarsa import ExpectedSARSA
from parnassus.algorithms.q_learning import QLearning
from tests.tabular_streams import ACTIONS, STATES, epsilon_greedy, learned, stream

ALPHA, GAMMA, EPSILON = 0.3, 0.9, 0.2


@pytest.mark.parametrize("target", [None, 0.5])
@pytest.mark.parametrize("num_steps", [1, 40])
def test_it_is_the_books_update(target: float | None, num_steps: int) -> None:
    """Equation 6.9."""
    steps, q = stream(3), np.zeros((STATES, ACTIONS))
    for step in steps:
        expected = epsilon_greedy(q[step.after], EPSILON if target is None else target) @ q[step.after]
        aim = step.r + GAMMA * (not step.terminated) * expected
        q[step.s, step.a] += ALPHA * (aim - q[step.s, step.a])
    algorithm = ExpectedSARSA(ALPHA, num_steps, GAMMA, EPSILON, target)
    np.testing.assert_allclose(learned(algorithm, steps, num_steps).q, q, rtol=1e-4, atol=1e-5)


def test_with_a_greedy_target_it_is_q_learning() -> None:
    steps = stream(4)
    found = learned(ExpectedSARSA(ALPHA, discount=GAMMA, target_epsilon=0.0), steps).q
    np.testing.assert_allclose(found, learned(QLearning(ALPHA, discount=GAMMA), steps).q, rtol=1e-5, atol=1e-6)
