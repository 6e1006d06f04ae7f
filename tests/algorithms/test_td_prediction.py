"""n-step TD prediction: the book's box, step by step; the values that it goes to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import training
from parnassus.algorithms.td_prediction import TDPrediction
from parnassus.collect import ScanCollector
from parnassus.envs.textbook import random_walk
from parnassus.types import BadInput
from tests.tabular_streams import SPEC, STATES, episodes, learned, stream

ALPHA, GAMMA = 0.3, 0.9


def box(steps: list, n: int) -> np.ndarray:
    """Sutton & Barto, section 7.1; a cut episode ends with the value of where it stood."""
    v = np.zeros(STATES)
    rest = steps[sum(map(len, episodes(steps))) :]
    for episode in [*episodes(steps), rest]:
        over = bool(episode) and episode[-1].done
        for t in range(len(episode) + n - 1 if over else len(episode)):
            if t < len(episode):  # once, also for the steps that the end leaves over
                after = v[episode[t].after] * (not episode[t].terminated)
            tau = t - n + 1
            if tau < 0:
                continue
            last = min(tau + n, len(episode))
            total = sum(GAMMA ** (i - tau) * episode[i].r for i in range(tau, last)) + GAMMA ** (last - tau) * after
            v[episode[tau].s] += ALPHA * (total - v[episode[tau].s])
    return v


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("num_steps", [1, 40])
def test_it_is_the_books_box(n: int, num_steps: int) -> None:
    steps = stream(n)
    algorithm = TDPrediction(ALPHA, n, num_steps, GAMMA)
    np.testing.assert_allclose(learned(algorithm, steps, num_steps).v, box(steps, n), rtol=1e-4, atol=1e-5)


def test_it_goes_to_the_values_of_the_policy() -> None:
    """A walk that leans to the right, in 16 environments: v(s) solves the walk's equations."""
    policy = jnp.tile(jnp.array([0.3, 0.7]), (5, 1))
    algorithm = TDPrediction(0.01, n=3, num_steps=4, discount=1.0, policy=policy)
    collector = ScanCollector(random_walk(), 16)
    state = training.init(algorithm, collector, jax.random.key(0), 200_000)
    for chunk in training.train(algorithm, collector, state, 200_000):  # noqa: B007
        pass
    ratio = 0.3 / 0.7  # the gambler's ruin
    expected = (1 - ratio ** np.arange(1, 6)) / (1 - ratio**6)
    np.testing.assert_allclose(chunk.state.learner.v, expected, atol=0.05)


def test_a_policy_for_other_tables_is_refused() -> None:
    with pytest.raises(BadInput, match="policy must be a table of 5 states and 3 actions"):
        TDPrediction(policy=jnp.ones((2, 3)) / 3).init(jax.random.key(0), SPEC)
