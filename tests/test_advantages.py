"""The estimators against sums written down, on one environment with an end, a time limit and an unfinished episode."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.advantages import GAE, TD, Estimator, NStep, RewardsToGo

T, GAMMA = 9, 0.9
ENDS = {2: "terminated", 5: "truncated"}


def case() -> tuple:
    """reward, V(o_t), V(o_{t+1}), terminated, truncated; successors inside an episode are the next observation."""
    reward, value, after = jax.random.normal(jax.random.key(0), (3, T, 1))
    ended = jnp.array([[t in ENDS or t == T - 1] for t in range(T)])
    next_value = jnp.where(ended, after, jnp.roll(value, -1, axis=0))
    flags = [jnp.array([[ENDS.get(t) == kind] for t in range(T)]) for kind in ("terminated", "truncated")]
    return reward, value, next_value, *flags


def look_ahead(t: int, n: int) -> float:
    """The n-step advantage of step t, cut where the episode or the trajectory ends."""
    reward, value, next_value, terminated, truncated = (np.asarray(x)[:, 0] for x in case())
    total, k = 0.0, t
    while True:
        total += GAMMA ** (k - t) * reward[k]
        if terminated[k]:
            return total - value[t]
        if truncated[k] or k == T - 1 or k - t == n - 1:
            return total + GAMMA ** (k - t + 1) * next_value[k] - value[t]
        k += 1


@pytest.mark.parametrize(
    ("estimator", "n"), [(TD(), 1), (NStep(1), 1), (NStep(3), 3), (RewardsToGo(), T), (GAE(0.0), 1), (GAE(1.0), T)]
)
def test_each_looks_as_far_as_it_says(estimator: Any, n: int) -> None:
    expected = [look_ahead(t, n) for t in range(T)]
    np.testing.assert_allclose(estimator(*case(), GAMMA)[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_gae_weighs_all_of_them() -> None:
    """(1 - lambda) sum_n lambda^(n-1) A^(n), where looking beyond the end is looking to the end (equation 16)."""
    trace = 0.7
    expected = [sum((1 - trace) * trace ** (n - 1) * look_ahead(t, n) for n in range(1, 200)) for t in range(T)]
    np.testing.assert_allclose(GAE(trace)(*case(), GAMMA)[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_they_are_estimators() -> None:
    assert all(isinstance(kind(), Estimator) for kind in (GAE, NStep, RewardsToGo, TD))
