"""Transitions to learn models from: of the classic environments under random actions, and of a noisy linear world."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from parnassus import rollout
from parnassus.off_policy import Experience, create_replay, experience
from parnassus.planning.sequences import draw
from parnassus.replay import Replay
from parnassus.types import Env, Spec, Transition


def random_steps(env: Env, num_steps: int, seed: int, num_envs: int = 4) -> Transition:
    """Steps of random actions, leaves [T, N, ...]."""
    reset_key, rollout_key = jax.random.split(jax.random.key(seed))
    act = lambda memory, observation, key: (draw(env.action_space, key, (num_envs,)), memory, {})  # noqa: E731
    actor = rollout.reset(env, reset_key, (), num_envs)
    return rollout.rollout(env, act, actor, (), rollout_key, num_steps)[1]


def spec_of(env: Any) -> Spec:
    return Spec(env.observation_space, env.action_space, 4)


def replay_of(env: Env, num_steps: int, seed: int) -> Replay:
    """A replay that is not full of `num_steps` random steps in each of four environments."""
    trajectory = random_steps(env, num_steps, seed)
    return create_replay(spec_of(env), 5 * num_steps).add(experience(trajectory, 0.99))


# o' - o = A o + B a + b + noise, r = c o + noise: one number moves much, and one little.
SPEC = Spec(spaces.Box(-np.inf, np.inf, (2,), np.float32), spaces.Box(-1, 1, (1,), np.float32), 4)
A = np.array([[-0.3, 0.1], [0.02, -0.01]], np.float32)
B = np.array([[1.0], [0.05]], np.float32)
C = np.array([2.0, -30.0], np.float32)
NOISE = np.array([0.3, 0.02, 0.5], np.float32)  # of the two numbers and of the reward


def linear(num_rows: int, seed: int) -> Experience:
    """Transitions of the noisy linear world, leaves [B, ...]; none terminates."""
    keys = jax.random.split(jax.random.key(seed), 3)
    o = jax.random.normal(keys[0], (num_rows, 2)) * jnp.array([[3.0, 0.1]])
    a = jax.random.uniform(keys[1], (num_rows, 1), minval=-1.0)
    noise = jax.random.normal(keys[2], (num_rows, 3)) * NOISE[None]
    change, reward = linear_mean(o, a)
    return Experience(o, a, reward + noise[:, 2], o + change + noise[:, :2], jnp.full(num_rows, 0.99))


def linear_mean(o: Any, a: Any) -> Any:
    """The expected change, and the expected reward."""
    return o @ A.T + a @ B.T + jnp.array([[0.5, 0.0]]), o @ C


def linear_replay(num_rows: int, seed: int = 0) -> Replay:
    rows = jax.tree.map(lambda x: x[:, None], linear(num_rows, seed))
    return create_replay(SPEC, 2 * num_rows).add(rows)
