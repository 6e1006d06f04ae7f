"""Epsilon-greedy frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.exploration import epsilon_greedy


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_frequencies(epsilon: float) -> None:
    n = 40_000
    actions = epsilon_greedy(jax.random.key(0), jnp.tile(jnp.array([0.0, 2.0, 1.0, 0.0]), (n, 1)), epsilon)
    expected = np.full(4, epsilon / 4) + np.array([0, 1 - epsilon, 0, 0])
    np.testing.assert_allclose(np.bincount(actions, minlength=4) / n, expected, atol=0.012)


def test_ties_are_broken_evenly() -> None:
    n = 40_000
    actions = epsilon_greedy(jax.random.key(1), jnp.tile(jnp.array([1.0, 0.0, 1.0]), (n, 1)), 0.0)
    np.testing.assert_allclose(np.bincount(actions, minlength=3) / n, [0.5, 0.0, 0.5], atol=0.012)
