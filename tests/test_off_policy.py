"""n-step transitions against their definition, and when gradient steps are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.algorithms.dqn import DQN
from parnassus.off_policy import experience
from parnassus.types import Spec, Transition


def trajectory(seed: int, num_steps: int = 12, num_envs: int = 3) -> Transition:
    """Numbered observations; terminations and truncations mixed."""
    rng = np.random.default_rng(seed)
    number = jnp.arange(num_steps * num_envs).reshape(num_steps, num_envs)
    reward = jnp.asarray(rng.normal(size=number.shape), jnp.float32)
    terminated, truncated = (jnp.asarray(rng.random(number.shape) < 0.15) for _ in range(2))
    return Transition({"o": number}, number, reward, {"o": 1000 + number}, terminated, truncated, {})


@pytest.mark.parametrize("n", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_n_step_transitions(n: int, seed: int) -> None:
    """The O(n) sum of each step: nothing past an episode's end, nor past the trajectory's."""
    data, gamma = trajectory(seed), 0.9
    found = experience(data, gamma, n)
    terminated, truncated = np.asarray(data.terminated), np.asarray(data.truncated)
    for t in range(12):
        for i in range(3):
            total, factor, last = 0.0, 1.0, t
            for last in range(t, min(t + n, 12)):
                total += factor * float(data.reward[last, i])
                factor *= gamma
                if terminated[last, i] or truncated[last, i]:
                    break
            assert found.reward[t, i] == pytest.approx(total, abs=1e-5)
            assert found.discount[t, i] == pytest.approx(0.0 if terminated[last, i] else factor, abs=1e-6)
            assert found.next_observation["o"][t, i] == data.next_observation["o"][last, i]
    np.testing.assert_array_equal(found.observation["o"], data.observation["o"])
    np.testing.assert_array_equal(found.action, data.action)


def test_nothing_is_learned_before_the_replay_has_enough() -> None:
    spec = Spec(spaces.Box(-1, 1, (1,), np.float32), spaces.Discrete(2), 2)
    algorithm = DQN(num_steps=3, learning_starts=10, minibatch_size=4, replay_size=64, hidden_sizes=(4,), num_updates=2)
    learner = algorithm.init(jax.random.key(0), spec)
    o = jnp.ones((3, 2, 1))
    data = Transition(o, jnp.zeros((3, 2), int), jnp.ones((3, 2)), o, jnp.zeros((3, 2), bool), o[..., 0] > 2, {})
    first, metrics = algorithm.learn(learner, data, jax.random.key(1))
    assert (first.replay.size, first.updates) == (6, 0)
    assert np.isnan(metrics["loss/value"]) and metrics["policy/epsilon"] == 1.0
    second, metrics = algorithm.learn(first, data, jax.random.key(2))
    assert (second.replay.size, second.updates) == (12, 2)
    assert np.isfinite(metrics["loss/value"]) and metrics["policy/epsilon"] < 1.0
