"""TD(lambda): the boxes of chapter 12; its two ends are TD(0) and Monte Carlo."""

import numpy as np
import pytest

from parnassus.algorithms.td_lambda import TDLambda
from parnassus.algorithms.td_prediction import TDPrediction
from tests.tabular_streams import STATES, episodes, learned, stream

ALPHA, GAMMA, LAMBDA = 0.2, 0.9, 0.7


def box(steps: list, traces: str, decay: float = LAMBDA) -> np.ndarray:
    """Sections 12.2 and 12.5, with one-hot features."""
    w, z, old = np.zeros(STATES), np.zeros(STATES), 0.0
    for step in steps:
        x = np.eye(STATES)[step.s]
        now, after = w[step.s], 0.0 if step.terminated else w[step.after]
        delta = step.r + GAMMA * after - now
        if traces == "accumulating":
            z = GAMMA * decay * z + x
            w = w + ALPHA * delta * z
        elif traces == "replacing":
            z = np.where(x == 1, 1.0, GAMMA * decay * z)
            w = w + ALPHA * delta * z
        else:
            z = GAMMA * decay * z + (1 - ALPHA * GAMMA * decay * z[step.s]) * x
            w = w + ALPHA * (delta + now - old) * z - ALPHA * (now - old) * x
        old = after
        if step.done:
            z, old = np.zeros(STATES), 0.0
    return w


@pytest.mark.parametrize("traces", ["accumulating", "replacing", "true-online"])
@pytest.mark.parametrize("num_steps", [1, 40])
def test_it_is_the_books_box(traces: str, num_steps: int) -> None:
    steps = stream(7)
    algorithm = TDLambda(ALPHA, LAMBDA, traces, num_steps, GAMMA)  # type: ignore[arg-type]
    np.testing.assert_allclose(learned(algorithm, steps, num_steps).v, box(steps, traces), rtol=1e-4, atol=1e-5)


def test_without_decay_it_is_td_0() -> None:
    steps = stream(8)
    for traces in ("accumulating", "replacing", "true-online"):
        found = learned(TDLambda(ALPHA, 0.0, traces, discount=GAMMA), steps).v  # type: ignore[arg-type]
        np.testing.assert_allclose(found, learned(TDPrediction(ALPHA, discount=GAMMA), steps).v, rtol=1e-5, atol=1e-6)


def test_with_full_traces_it_is_monte_carlo() -> None:
    """True online TD(1) over an episode that visits each state once moves each by alpha (G - v)."""
    episode = next(episode for seed in range(100) for episode in episodes(stream(seed)) if is_fresh(episode))
    episode = [*episode[:-1], episode[-1]._replace(terminated=True, truncated=False)]
    found = learned(TDLambda(ALPHA, 1.0, "true-online", discount=GAMMA), episode).v
    expected, total = np.zeros(STATES), 0.0
    for step in reversed(episode):
        total = step.r + GAMMA * total
        expected[step.s] = ALPHA * total
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def is_fresh(episode: list) -> bool:
    """Of at least three steps, and no state twice."""
    return len(episode) >= 3 and len({step.s for step in episode}) == len(episode)
