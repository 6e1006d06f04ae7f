"""The pure scan that collecting, evaluation and imagination share: act, step, reset where an episode ended."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Float, Int

from parnassus.types import Env, Key, Memory, Transition, Tree

# (memory [N, ...], observation [N, ...], key) -> (action [N, ...], memory [N, ...], extras)
Act = Callable[[Memory, Tree, Key], tuple[Tree, Memory, Mapping[str, Tree]]]


class Episodes(NamedTuple):
    """Episode statistics: what runs now, and the sums over the episodes that ended in the last trajectory."""

    reward: Float[Array, "N"]  # undiscounted return so far of the running episodes
    length: Int[Array, "N"]
    ended: Int[Array, ""]
    ended_return: Float[Array, ""]  # summed over the `ended` episodes
    ended_length: Int[Array, ""]

    @classmethod
    def zeros(cls, num_envs: int) -> "Episodes":
        """N episodes about to begin."""
        zero = jnp.zeros((), jnp.int32)
        return cls(jnp.zeros(num_envs), jnp.zeros(num_envs, jnp.int32), zero, jnp.zeros(()), zero)


class EnvActor(NamedTuple):
    """N environments in the middle of their episodes."""

    state: Tree  # [N, ...]
    observation: Tree  # [N, ...]
    memory: Memory  # [N, ...]
    episodes: Episodes


def env_action(space: gymnasium.Space, action: Tree) -> Tree:
    """The policy's action in the environment's units, for NumPy and JAX arrays alike.

    A Box's bounded dimensions are mapped affinely from [-1, 1] to [low, high] and clipped there, unbounded ones pass;
    a Discrete or MultiDiscrete that starts at another number than 0 is shifted.
    """
    match space:
        case spaces.Box():
            bounded = np.isfinite(space.low) & np.isfinite(space.high)
            low, high = np.where(bounded, space.low, -1.0), np.where(bounded, space.high, 1.0)
            centre, half = ((high + low) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)
            bounded, centre, half = (np.broadcast_to(x, action.shape) for x in (bounded, centre, half))
            scaled = centre + half * action.clip(-1.0, 1.0)
            if bounded.all():
                return scaled
            return (np if isinstance(action, np.ndarray) else jnp).where(bounded, scaled, action)
        case spaces.Discrete() | spaces.MultiDiscrete() if np.any(space.start):
            return action + np.broadcast_to(np.asarray(space.start, action.dtype), action.shape)
    return action


def reset(env: Env, key: Key, memory: Memory, num_envs: int) -> EnvActor:
    """N fresh episodes."""
    state, observation = jax.vmap(env.reset)(jax.random.split(key, num_envs))
    return EnvActor(state, observation, memory, Episodes.zeros(num_envs))


def where(mask: Array | np.ndarray, new: Tree, old: Tree) -> Tree:
    """Leaf by leaf, row by row: `new` where `mask` [N], else `old`."""
    return jax.tree.map(lambda x, y: jnp.where(mask.reshape(mask.shape + (1,) * (jnp.ndim(y) - 1)), x, y), new, old)


def rollout(
    env: Env, act: Act, actor: EnvActor, initial_memory: Memory, key: Key, num_steps: int
) -> tuple[EnvActor, Transition]:
    """`num_steps` steps of N environments by `act`; the trajectory's leaves are [T, N, ...].

    An environment whose episode ends is reset in the same step, its memory too; the transition has the true successor.
    """
    num_envs = actor.episodes.reward.shape[0]
    space = env.action_space

    def step(actor: EnvActor, key: Key) -> tuple[EnvActor, Transition]:
        act_key, step_key, reset_key = jax.random.split(key, 3)
        action, memory, extras = act(actor.memory, actor.observation, act_key)
        after = jax.vmap(env.step)(actor.state, env_action(space, action), jax.random.split(step_key, num_envs))
        reward = after.reward.astype(jnp.float32)
        done = after.terminated | after.truncated
        transition = Transition(
            actor.observation, action, reward, after.observation, after.terminated, after.truncated, extras
        )

        running = actor.episodes
        episode_return, length = running.reward + reward, running.length + 1
        episodes = Episodes(
            reward=jnp.where(done, 0.0, episode_return),
            length=jnp.where(done, 0, length),
            ended=running.ended + done.sum(),
            ended_return=running.ended_return + jnp.where(done, episode_return, 0.0).sum(),
            ended_length=running.ended_length + jnp.where(done, length, 0).sum(),
        )
        fresh = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))
        state, observation = where(done, fresh, (after.state, after.observation))
        return EnvActor(state, observation, where(done, initial_memory, memory), episodes), transition

    zero = Episodes.zeros(num_envs)
    episodes = actor.episodes._replace(ended=zero.ended, ended_return=zero.ended_return, ended_length=zero.ended_length)
    return jax.lax.scan(step, actor._replace(episodes=episodes), jax.random.split(key, num_steps))
