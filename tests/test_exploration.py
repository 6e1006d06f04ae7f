"""Epsilon-greedy frequencies; the noise of deterministic policies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.exploration import GaussianNoise, OrnsteinUhlenbeck, epsilon_greedy
from parnassus.schedules import Linear, Progress
from parnassus.types import Spec


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


SPEC = Spec(spaces.Box(-1, 1, (1,), np.float32), spaces.Box(-1, 1, (3,), np.float32), 2000)


def test_gaussian_noise_fades() -> None:
    noise, action = GaussianNoise(Linear(0.4, 0.2)), jnp.zeros((2000, 3))
    half = Progress(jnp.int32(50), jnp.int32(100))
    drawn, memory = noise(noise.initial_memory(SPEC), action, jax.random.key(0), half)
    assert memory == ()
    np.testing.assert_allclose(np.std(drawn, axis=0), 0.3, rtol=0.05)
    np.testing.assert_allclose(np.mean(drawn, axis=0), 0.0, atol=0.03)


def test_ornstein_uhlenbeck_noise_is_autoregressive() -> None:
    """x' = (1 - theta) x + sigma N: variance sigma^2 / (1 - (1 - theta)^2), correlation 1 - theta from step to step."""
    noise = OrnsteinUhlenbeck(scale=0.2, reversion=0.15)

    def step(memory, key):
        drawn, memory = noise(memory, jnp.zeros((2000, 3)), key, Progress.start())
        return memory, drawn

    _, path = jax.lax.scan(step, noise.initial_memory(SPEC), jax.random.split(jax.random.key(0), 60))
    path = np.asarray(path)
    assert np.std(path[0]) == pytest.approx(0.2, rel=0.05)  # it starts at 0
    assert np.std(path[-1]) == pytest.approx(0.2 / np.sqrt(1 - 0.85**2), rel=0.05)
    assert np.corrcoef(path[-2].ravel(), path[-1].ravel())[0, 1] == pytest.approx(0.85, abs=0.02)
