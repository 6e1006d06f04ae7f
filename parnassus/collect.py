"""Where experience comes from: `ScanCollector` (JAX environments, compiled) and `HostCollector` (everything else)."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from parnassus.compilation import ONE_AFTER_THE_OTHER
from parnassus.encoding import zeros
from parnassus.rollout import EnvActor, Episodes, env_action, reset, rollout, where
from parnassus.types import (
    Algorithm,
    Behavior,
    Count,
    Env,
    EnvironmentRaised,
    HostEnv,
    Key,
    Memory,
    Spec,
    TrainingFailed,
    Transition,
    Tree,
    pytree,
)


@pytree
class ScanCollector:
    """Steps N copies of a JAX environment inside the compiled program."""

    env: Env
    num_envs: Count = 1

    @property
    def is_pure(self) -> bool:
        """It may be scanned, jitted and vmapped."""
        return True

    @property
    def spec(self) -> Spec:
        """The environment's spaces."""
        return Spec(self.env.observation_space, self.env.action_space, self.num_envs)

    def init(self, algorithm: Algorithm, key: Key) -> EnvActor:
        """N fresh episodes."""
        return reset(self.env, key, algorithm.initial_memory(self.spec), self.num_envs)

    def begin(self, algorithm: Algorithm, actor: EnvActor, key: Key) -> EnvActor:
        """Nothing: a JAX environment's state is part of the actor."""
        return actor

    def collect(
        self, algorithm: Algorithm, behavior: Behavior, actor: EnvActor, key: Key
    ) -> tuple[EnvActor, Transition]:
        """`algorithm.num_steps` exploring steps in each environment."""
        act = lambda memory, observation, act_key: algorithm.act(behavior, memory, observation, act_key, True)  # noqa: E731
        return rollout(self.env, act, actor, algorithm.initial_memory(self.spec), key, algorithm.num_steps)


class HostActor(NamedTuple):
    """What acting on the host needs between two steps; the environments themselves live in the collector."""

    observation: Tree  # [N, ...]
    memory: Memory  # [N, ...]
    episodes: Episodes


def compiled_act(spec: Spec, explore: bool, algorithm: Algorithm, behavior: Behavior) -> Callable:
    """The one compiled call of each step: (memory, observation, key) ->
    (action for the environment, action as drawn, memory, extras, next key).

    The key is raw, as from `jax.random.key_data`: typed keys take JAX's slow way in and out. Algorithm and behavior
    are taken apart here, once, and not by every call. Kernels run one after the other: 27 us in place of 90 for a
    Gaussian policy's action in 8 environments.
    """
    leaves, structure = jax.tree.flatten((algorithm, behavior))
    return partial(_act(spec, explore), structure, tuple(leaves))


@lru_cache
def _act(spec: Spec, explore: bool) -> Callable:
    @partial(jax.jit, static_argnums=0, compiler_options=ONE_AFTER_THE_OTHER)
    def act(
        structure: jax.tree_util.PyTreeDef, leaves: tuple, memory: Memory, observation: Tree, key: Array
    ) -> tuple[Tree, Tree, Memory, Mapping[str, Tree], Array]:
        algorithm, behavior = jax.tree.unflatten(structure, leaves)
        key, act_key = jax.random.split(jax.random.wrap_key_data(key))
        action, memory, extras = algorithm.act(behavior, memory, observation, act_key, explore)
        return env_action(spec.action_space, action), action, memory, extras, jax.random.key_data(key)

    return act


def as_numpy(tree: Tree) -> Tree:
    """The same arrays for the host; a lone one without the time that walking through a tree takes."""
    return np.asarray(tree) if isinstance(tree, jax.Array) else jax.tree.map(np.asarray, tree)


class HostCollector:
    """Steps N environments that live outside JAX, in a Python loop around one compiled `act`.

    They cannot be saved, so every chunk begins by resetting them with seeds from the chunk's key, whether training
    was interrupted there or not: that makes resuming exact. `exact_resume=False` leaves episodes unbroken instead.
    """

    is_pure = False

    def __init__(self, env: HostEnv, exact_resume: bool = True) -> None:
        self.env = env
        self.exact_resume = exact_resume
        self.spec = Spec(env.observation_space, env.action_space, env.num_envs)
        self._live = False  # whether the environments are where the last `collect` left them

    def init(self, algorithm: Algorithm, key: Key) -> HostActor:
        """A placeholder of the right shapes: episodes start at the first chunk's `begin`."""
        num_envs = self.env.num_envs
        observation = zeros(self.env.observation_space, (num_envs,))
        self._live = False
        return HostActor(observation, algorithm.initial_memory(self.spec), Episodes.zeros(num_envs))

    def begin(self, algorithm: Algorithm, actor: HostActor | None, key: Key) -> HostActor:
        """Reset every environment, seeded by `key` (with `exact_resume=False`: only the first time)."""
        if actor is not None and self._live and not self.exact_resume:
            return actor
        seeds = np.asarray(jax.random.bits(key, (self.env.num_envs,), jnp.uint32)) >> 1  # Gymnasium wants 31 bits
        try:
            observation = self.env.reset([int(seed) for seed in seeds])
        except Exception as error:
            raise TrainingFailed(f"the environment's reset raised {type(error).__name__}: {error}") from error
        self._live = True
        return HostActor(observation, algorithm.initial_memory(self.spec), Episodes.zeros(self.env.num_envs))

    def collect(
        self, algorithm: Algorithm, behavior: Behavior, actor: HostActor, key: Key
    ) -> tuple[HostActor, Transition]:
        """`algorithm.num_steps` exploring steps in each environment; the trajectory's leaves are NumPy arrays."""
        num_steps, env = algorithm.num_steps, self.env
        observation, memory, episodes = actor
        has_memory = bool(jax.tree.leaves(memory))
        act = compiled_act(self.spec, True, algorithm, behavior)
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            key = jax.random.key_data(key)
        for t in range(num_steps):
            physical, action, memory, extras, key = act(memory, observation, key)
            try:
                after = env.step(as_numpy(physical))
            except Exception as error:
                self._live = False
                raise EnvironmentRaised(f"the environment raised {type(error).__name__}: {error}", t) from error
            transition = Transition(
                observation,
                action,
                after.reward,  # type: ignore[arg-type]  # NumPy, on the host
                after.next_observation,
                after.terminated,  # type: ignore[arg-type]
                after.truncated,  # type: ignore[arg-type]
                extras,
            )
            leaves = jax.tree.leaves(transition)
            if t == 0:  # rows are written where they will stay: keeping 2048 small arrays to stack costs more
                structure = jax.tree.structure(transition)
                buffers = [np.empty((num_steps, *leaf.shape), leaf.dtype) for leaf in leaves]
            for buffer, leaf in zip(buffers, leaves, strict=True):
                buffer[t] = np.asarray(leaf)  # `buffer[t] = leaf` of a JAX array is five times slower
            observation = after.observation
            if has_memory and (done := after.terminated | after.truncated).any():
                memory = where(done, algorithm.initial_memory(self.spec), memory)

        trajectory: Transition = jax.tree.unflatten(structure, buffers)
        return HostActor(observation, memory, _count(episodes, trajectory)), trajectory

    def close(self) -> None:
        """Close the environments."""
        self.env.close()


def collector_for(env: Env | HostEnv, num_envs: int, exact_resume: bool = True) -> ScanCollector | HostCollector:
    """What collects from `env`: N copies of a JAX environment, or the N that a HostEnv has."""
    return (
        HostCollector(cast(HostEnv, env), exact_resume) if is_on_host(env) else ScanCollector(cast(Env, env), num_envs)
    )


def is_on_host(env: Env | HostEnv) -> bool:
    """Whether these are environments that live outside JAX, N at a time."""
    return hasattr(env, "num_envs") and hasattr(env, "close")


def _count(episodes: Episodes, trajectory: Transition) -> Episodes:
    """The episode statistics after a trajectory: `rollout` does the same inside its scan."""
    rewards, done = np.asarray(trajectory.reward), np.asarray(trajectory.done)
    old_reward, old_length = np.asarray(episodes.reward), np.asarray(episodes.length)
    # Where no episode ended, which is most often; the loop below overwrites the others.
    reward, length = old_reward + rewards.sum(axis=0), old_length + np.int32(len(done))
    ended_return, ended_length = 0.0, 0
    for n in np.flatnonzero(done.any(axis=0)):
        before, length_before, start = old_reward[n], old_length[n], 0
        for end in np.flatnonzero(done[:, n]) + 1:
            ended_return += before + rewards[start:end, n].sum()
            ended_length += length_before + end - start
            before, length_before, start = 0.0, 0, int(end)
        reward[n], length[n] = rewards[start:, n].sum(), len(done) - start
    counts = np.int32(done.sum()), np.float32(ended_return), np.int32(ended_length)
    return Episodes(reward, length, *counts)  # type: ignore[arg-type]  # NumPy, on the host
