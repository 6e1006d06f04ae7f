"""SARSA(lambda): the book's box with one-hot features; without decay it is SARSA."""

import numpy as np
import pytest

from parnassus.algorithms.sarsa import SARSA
from parnassus.algorithms.sarsa_lambda import SARSALambda
from tests.tabular_streams import ACTIONS, STATES, episodes, epsilon_greedy, learned, stream

ALPHA, GAMMA, EPSILON, LAMBDA = 0.2, 0.9, 0.2, 0.7


def box(steps: list, traces: str) -> np.ndarray:
    """Section 12.7; what waits for an action that is not known yet is left out."""
    q = np.zeros((STATES, ACTIONS))
    rest = steps[sum(map(len, episodes(steps))) :]
    for episode in [*episodes(steps), rest]:
        e = np.zeros_like(q)
        for t, step in enumerate(episode):
            if t + 1 < len(episode):
                after = q[episode[t + 1].s, episode[t + 1].a]
            elif not step.done:
                break
            else:
                row = q[step.after]
                after = 0.0 if step.terminated else epsilon_greedy(row, EPSILON) @ row
            delta = step.r + GAMMA * after - q[step.s, step.a]
            e *= GAMMA * LAMBDA
            e[step.s, step.a] = 1.0 if traces == "replacing" else e[step.s, step.a] + 1.0
            q += ALPHA * delta * e
    return q


@pytest.mark.parametrize("traces", ["accumulating", "replacing"])
@pytest.mark.parametrize("num_steps", [1, 40])
def test_it_is_the_books_box(traces: str, num_steps: int) -> None:
    steps = stream(5)
    algorithm = SARSALambda(ALPHA, LAMBDA, traces, num_steps, GAMMA, EPSILON)  # type: ignore[arg-type]
    np.testing.assert_allclose(learned(algorithm, steps, num_steps).q, box(steps, traces), rtol=1e-4, atol=1e-5)


def test_without_decay_it_is_sarsa() -> None:
    steps = stream(6)
    found = learned(SARSALambda(ALPHA, 0.0, discount=GAMMA, epsilon=EPSILON), steps).q
    expected = learned(SARSA(ALPHA, discount=GAMMA, epsilon=EPSILON), steps).q
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
