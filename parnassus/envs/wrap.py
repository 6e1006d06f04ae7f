"""JAX environments in other clothes: as a Gymnasium environment, and plain objects as pytrees."""

import dataclasses
import functools
from typing import Any

import gymnasium
import jax
import numpy as np

from parnassus.types import Env, Key, Step, Tree, register


@jax.jit
def _reset(env: Env, key: Key) -> tuple[Tree, Tree, Key]:
    key, reset_key = jax.random.split(key)
    return *env.reset(reset_key), key


@jax.jit
def _step(env: Env, state: Tree, action: Tree, key: Key) -> tuple[Step, Key]:
    key, step_key = jax.random.split(key)
    return env.step(state, action, step_key), key


class AsGymnasium(gymnasium.Env):
    """A JAX environment as a Gymnasium environment: one compiled call for each reset and step.

    The keys, so that pure functions can follow the same trajectory:

        key = jax.random.key(s)                            # reset(seed=s)
        key, reset_key = jax.random.split(key)             # every reset, with a seed or without
        state, observation = env.reset(reset_key)
        key, step_key = jax.random.split(key)              # every step
        step = env.step(state, action, step_key)

    A first reset without a seed draws s from the operating system's entropy. Observations are NumPy arrays that the
    caller may keep. The key lives on after an episode's end: `reset()` starts another episode.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own idiom)

    def __init__(self, env: Env) -> None:
        # On the device once: Python floats would be transferred anew in every call.
        self._env = jax.device_put(as_pytree(env))
        self.observation_space = env.observation_space
        self.action_space = env.action_space
        self._key: Key | None = None
        self.state: Tree = None  # of the JAX environment

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tree, dict]:
        """A new episode; `options` are ignored."""
        super().reset(seed=seed)
        if seed is None and self._key is None:
            seed = int(self.np_random.integers(2**31))
        if seed is not None:
            self._key = jax.random.key(seed)
        self.state, observation, self._key = _reset(self._env, self._key)
        return jax.tree.map(np.array, observation), {}

    def step(self, action: Tree) -> tuple[Tree, float, bool, bool, dict]:
        """One step. Raises gymnasium.error.ResetNeeded before the first `reset`."""
        if self._key is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        after, self._key = _step(self._env, self.state, jax.tree.map(np.asarray, action), self._key)
        self.state = after.state
        observation, reward, terminated, truncated = jax.device_get(after[1:])
        return jax.tree.map(np.array, observation), float(reward), bool(terminated), bool(truncated), {}


def as_gymnasium(env: Env) -> gymnasium.Env:
    """The JAX environment `env` as a Gymnasium environment; how its keys follow from a seed: see AsGymnasium."""
    return AsGymnasium(env)


class _Same:
    """Holds an object that may have no hash, or no honest one: equal if it is the same object."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


@functools.partial(register, data=[], static=["held"])
@dataclasses.dataclass(frozen=True)
class Opaque:
    """A user's environment that is not a pytree, as one without leaves (implements Env).

    All of it is static: what it holds when a function is compiled is compiled in, and later changes go unseen.
    """

    held: _Same

    @property
    def observation_space(self) -> gymnasium.Space:
        """The environment's own."""
        return self.held.value.observation_space

    @property
    def action_space(self) -> gymnasium.Space:
        """The environment's own."""
        return self.held.value.action_space

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        """The environment's own."""
        return self.held.value.reset(key)

    def step(self, state: Tree, action: Tree, key: Key) -> Step:
        """The environment's own."""
        return self.held.value.step(state, action, key)


def as_pytree(env: Env) -> Env:
    """`env` itself if it is a registered pytree, else `Opaque`: either may be an argument of a compiled function."""
    return Opaque(_Same(env)) if jax.tree_util.all_leaves([env]) else env
