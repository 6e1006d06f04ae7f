"""Gymnax environments (gymnax >= 1.0.1), stepped raw: no reset of their own, so the true successor is never lost."""

import dataclasses
import functools
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from parnassus.envs.gymnasium import did_you_mean
from parnassus.types import BadInput, Key, Step, Tree, register


@dataclasses.dataclass(frozen=True)
class _Definition:
    """What is static of a Gymnax environment: the object, and its spaces as concrete numbers."""

    env: Any  # equal if it is the same object
    observation_space: gymnasium.Space = dataclasses.field(hash=False)
    action_space: gymnasium.Space = dataclasses.field(hash=False)


@functools.partial(register, data=["params"], static=["definition"])
@dataclasses.dataclass(frozen=True)
class Gymnax:
    """A Gymnax environment (implements Env); its `params` are data, so they can be swept. Build it with `create`."""

    definition: _Definition
    params: Tree

    @classmethod
    def create(cls, env: Any, params: Tree | None = None) -> "Gymnax":
        """From a gymnax Environment and its parameters (default: its own). Raises BadInput for spaces of other kinds.

        The spaces are read here, once: under `jit` the parameters that they depend on have no numbers.
        """
        params = env.default_params if params is None else params
        definition = _Definition(env, _space(env.observation_space(params)), _space(env.action_space(params)))
        return cls(definition, params)

    @property
    def observation_space(self) -> gymnasium.Space:
        """As Gymnax tells it for the parameters given to `create`."""
        return self.definition.observation_space

    @property
    def action_space(self) -> gymnasium.Space:
        """As Gymnax tells it for the parameters given to `create`."""
        return self.definition.action_space

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        """A first state and its observation."""
        observation, state = self.definition.env.reset_env(key, self.params)
        return state, self._typed(observation)

    def step(self, state: Tree, action: Tree, key: Key) -> Step:
        """One step from `state`, without any reset."""
        env = self.definition.env
        observation, state, reward, terminated, _ = env.step_env(key, state, action, self.params)
        truncated = env.is_truncated(state, self.params)
        return Step(state, self._typed(observation), jnp.asarray(reward, jnp.float32), terminated, truncated)

    def _typed(self, observation: Tree) -> Tree:
        """Some environments (Catch, FourRooms) give another dtype than they say."""
        space = self.observation_space
        return observation.astype(space.dtype) if isinstance(space, spaces.Box) else observation


def make(name: str, **options: Any) -> Gymnax:
    """A registered Gymnax environment; options set fields of its parameters, or else go to its constructor.

    Raises BadInput for an unknown name or option, or if gymnax is not installed.
    """
    registration = _registration()
    if name not in registration.registered_envs:
        raise BadInput(f"unknown Gymnax environment {name!r}; {did_you_mean(name, registration.registered_envs)}")
    env, params = _default(name)
    overrides = {key: value for key, value in options.items() if hasattr(params, key)}
    if len(overrides) < len(options):
        try:
            env, params = registration.make(name, **{k: v for k, v in options.items() if k not in overrides})
        except TypeError as cause:
            raise BadInput(f"gymnax:{name} does not know an option of {options}: {cause}") from cause
    return Gymnax.create(env, params.replace(**overrides) if overrides else params)


def names() -> list[str]:
    """All names that `make` knows; none if gymnax is not installed."""
    try:
        return list(_registration().registered_envs)
    except BadInput:
        return []


def _registration() -> Any:
    try:
        from gymnax import registration
    except ImportError as cause:
        raise BadInput('Gymnax environments need gymnax 1.0.1 or later: pip install "parnassus[gymnax]"') from cause
    return registration


@functools.cache
def _default(name: str) -> tuple[Any, Any]:
    """One object for each name: a second would be another static value, and compile everything again."""
    return _registration().make(name)


def _space(space: Any) -> gymnasium.Space:
    """A Gymnax space as Gymnasium's; the largest floats, which Gymnax writes for no bound, become infinite."""
    children = getattr(space, "spaces", None)
    if isinstance(children, dict):
        return spaces.Dict({key: _space(part) for key, part in children.items()})
    if children is not None:
        return spaces.Tuple([_space(part) for part in children])
    if hasattr(space, "n"):
        return spaces.Discrete(int(space.n))
    if not (hasattr(space, "low") and hasattr(space, "high")):
        raise BadInput(f"a Gymnax environment has a space that Gymnasium does not: {space}")
    dtype = np.dtype(space.dtype)
    low, high = (np.broadcast_to(np.asarray(bound, dtype), space.shape).copy() for bound in (space.low, space.high))
    if dtype.kind == "f":
        largest = np.finfo(dtype).max
        low[low <= -largest], high[high >= largest] = -np.inf, np.inf
    return spaces.Box(low, high, space.shape, dtype.type)
