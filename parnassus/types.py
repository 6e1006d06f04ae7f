"""The contract: what an algorithm, a collector and an environment are to each other.

Everything that training changes is in arguments and results, never in `self`: an algorithm is a frozen dataclass of
hyper-parameters whose methods are pure functions, and `TrainState` is both the loop's carry and the checkpoint.
"""

import dataclasses
import operator
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar, dataclass_transform, runtime_checkable

import gymnasium
import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from jaxtyping import Key as KeyArray

Tree = Any  # a pytree of arrays
Key = PRNGKeyArray  # a typed key, `jax.random.key`; whoever receives one consumes it
Keys = KeyArray[Array, "S"]  # one for each seed
Metrics = dict[str, Array]  # flat, "group/name" -> scalar
Learner = Any  # every array an algorithm will ever change, one pytree
Behavior = Any  # the part of a learner that acting needs
Memory = Any  # per-environment memory of the actor, leaves [N, ...]; () for most
Actor = Any  # environment states, observations, memories, episode statistics


class ParnassusError(Exception):
    """Something a user can mend, said in one sentence."""


class BadInput(ParnassusError):
    """An argument, option or file is wrong; found before any training. The command line exits with status 2."""


class TrainingFailed(ParnassusError):
    """Training cannot go on (a number is not finite, the environment raised). The command line exits with status 1."""


class EnvironmentRaised(TrainingFailed):
    """An environment raised in time step `step` (0-based) of a trajectory; the cause is chained."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Transition(NamedTuple):
    """What is learned from. As a trajectory its leaves are [T, N, ...]: time, environment."""

    observation: Tree  # o_t
    action: Tree  # a_t, as the policy drew it: before it is scaled or clipped for the environment
    reward: Float[Array, "T N"]  # r_{t+1}
    next_observation: Tree  # o_{t+1}: the true successor, also where the environment was reset
    terminated: Bool[Array, "T N"]  # absorbing state: bootstrap with 0
    truncated: Bool[Array, "T N"]  # cut short (time limit): bootstrap with V(o_{t+1}), end the trace
    extras: Mapping[str, Tree]  # what `act` wants `learn` to see, e.g. {"log_prob": ...}

    @property
    def done(self) -> Bool[Any, "*batch"]:
        """[T, N], or [N] of one time step: the episode ended here, for either reason."""
        return self.terminated | self.truncated


@dataclasses.dataclass(frozen=True)
class Spec:
    """What an algorithm must know of where it will act."""

    observation_space: gymnasium.Space = dataclasses.field(hash=False)  # spaces have no hash, but an honest ==
    action_space: gymnasium.Space = dataclasses.field(hash=False)
    num_envs: int  # N


@runtime_checkable
class Algorithm(Protocol):
    """A frozen dataclass of hyper-parameters (see `pytree`); its methods are pure functions."""

    @property
    def num_steps(self) -> int:
        """T: environment steps between two calls of `learn`, in each of the N environments."""

    def init(self, key: Key, spec: Spec) -> Learner:
        """Every array the algorithm will ever change. Raises BadInput if it cannot act or learn in `spec`."""

    def behavior(self, learner: Learner) -> Behavior:
        """The part of the learner that acting needs: it alone travels to workers and exports."""

    def initial_memory(self, spec: Spec) -> Memory:
        """The actor's memory at the start of an episode, leaves [N, ...]; () where there is none."""

    def act(
        self, behavior: Behavior, memory: Memory, observation: Tree, key: Key, explore: bool
    ) -> tuple[Tree, Memory, Mapping[str, Tree]]:
        """Actions, memories and extras for a batch of observations, leaves [N, ...]."""

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """The learner after seeing `trajectory`, and a flat dict of scalars."""


@runtime_checkable
class AsynchronousAlgorithm(Algorithm, Protocol):
    """One whose workers do not wait for each other: `learn` in two halves, between which others may have written.

    `parnassus.distributed.asynchronous` drives it. Each worker has one environment, so `init` is told of one.
    """

    def worker(self, index: int, num_workers: int) -> "AsynchronousAlgorithm":
        """The algorithm as worker `index` runs it: only numbers may differ."""

    def parameters(self, learner: Learner) -> Tree:
        """The part of the learner that steps are added to; of the rest, the last to write decides."""

    def gradients(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Tree, Metrics]:
        """What a worker finds with its own copy of the learner."""

    def apply(self, learner: Learner, gradients: Tree, trajectory: Transition) -> Learner:
        """The learner as it is by now, after a step along these gradients."""


@runtime_checkable
class Collector(Protocol):
    """Where experience comes from: the only impure seam."""

    @property
    def is_pure(self) -> bool:
        """May be traced: scanned, jitted, vmapped over seeds."""

    @property
    def spec(self) -> Spec:
        """The spaces and the number of environments."""

    def init(self, algorithm: Algorithm, key: Key) -> Actor:
        """Environment states, observations, memories, episode statistics: one pytree."""

    def begin(self, algorithm: Algorithm, actor: Actor, key: Key) -> Actor:
        """At each chunk's start. Pure: the identity. Host: every environment is reset, seeded by `key`."""

    def collect(self, algorithm: Algorithm, behavior: Behavior, actor: Actor, key: Key) -> tuple[Actor, Transition]:
        """`algorithm.num_steps` steps in each environment, as a trajectory with leaves [T, N, ...]."""


class TrainState(NamedTuple):
    """All that the next iteration reads. It is the loop's carry and the checkpoint."""

    learner: Learner
    actor: Actor
    key: Key
    iteration: Int[Array, ""]


class Step(NamedTuple):
    """The result of one step of one JAX environment (no batch dimension)."""

    state: Tree  # the environment's state after the step, time included
    observation: Tree  # of the state after the step, also where the episode ended
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]  # the state is absorbing
    truncated: Bool[Array, ""]  # a time limit cut the episode short


@runtime_checkable
class Env(Protocol):
    """A pure environment: two functions and two spaces, preferably a `pytree` (its float fields may then be swept).

    It never resets itself: `parnassus.rollout` does, and keeps the true successor of an episode's last step. A learned
    world model has the same signature, so imagination is an ordinary rollout.
    """

    @property
    def observation_space(self) -> gymnasium.Space:
        """Observations are arrays (or dicts and tuples of arrays) of this space."""

    @property
    def action_space(self) -> gymnasium.Space:
        """A bounded Box receives actions in its own units, [low, high]."""

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        """A first state and its observation."""

    def step(self, state: Tree, action: Tree, key: Key) -> Step:
        """One step from `state`, without any reset."""


class HostStep(NamedTuple):
    """The result of one step of N host environments; NumPy arrays [N, ...] that the caller may keep."""

    observation: Tree  # what the next action is chosen from: the reset observation where an episode ended
    next_observation: Tree  # the true successor
    reward: np.ndarray  # float32 [N]
    terminated: np.ndarray  # bool [N]
    truncated: np.ndarray  # bool [N]


@runtime_checkable
class HostEnv(Protocol):
    """N environments that live outside JAX and reset themselves in the same step in which an episode ends."""

    observation_space: gymnasium.Space  # of one environment
    action_space: gymnasium.Space  # of one environment
    num_envs: int

    def reset(self, seeds: list[int]) -> Tree:
        """Start every environment afresh, environment i from seeds[i]: the same seeds, the same future. [N, ...]."""

    def step(self, actions: Tree) -> HostStep:
        """One step of every environment; actions [N, ...] in the environments' own units."""

    def close(self) -> None:
        """Release processes and windows."""


class Bounds(NamedTuple):
    """What a hyper-parameter may be: `Annotated[float, Bounds(0, 1)]`. Checked by `check` before training."""

    low: float = -float("inf")
    high: float = float("inf")


Count = Annotated[int, Bounds(1)]
WholeNumber = Annotated[int, Bounds(0)]
NonNegative = Annotated[float, Bounds(0)]
Fraction = Annotated[float, Bounds(0, 1)]

_STATIC = (int, bool, str, bytes, tuple, type(None), nn.Module)
_T = TypeVar("_T")


def _is_static(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _is_static(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return all(_is_static(argument) for argument in typing.get_args(annotation))
    kind = origin or annotation
    if kind in (typing.Literal, Callable):  # Callable itself: a class with `__call__`, such as Linear, holds numbers
        return True
    return isinstance(kind, type) and issubclass(kind, _STATIC)


@dataclass_transform(frozen_default=True)
def pytree(cls: type[_T]) -> type[_T]:
    """A frozen dataclass that is a JAX pytree: real numbers are data, shapes are static.

    Fields annotated with int, bool, str, tuple, a callable or a Flax module (or a union of these) are static: changing
    one compiles a new program, so its value must have an honest `==` and hash. Every other field (float, arrays, other
    pytrees) is a leaf or a subtree: changing it does not, and `jax.vmap` over it is a hyper-parameter sweep.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    # JAX rebuilds pytrees with tracers and placeholders for leaves: run-time type checkers must let them through.
    cls.__no_type_check__ = True  # type: ignore[attr-defined]
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    static = [field.name for field in fields if _is_static(field.type)]
    return register(cls, data=[field.name for field in fields if field.name not in static], static=static)


def register(cls: type[_T], data: list[str], static: list[str]) -> type[_T]:
    """Make the dataclass `cls` a JAX pytree: the fields `data` are its children, those in `static` are compared.

    In place of `jax.tree_util.register_dataclass`, under which two classes with equal fields have equal treedefs (JAX
    0.10 to 0.12 compare arity and static fields, not the class). Where their hashes happen to meet in a cache, which
    is by chance of the process, a compiled function runs the one class's program for the other's object.
    """
    keys = [jax.tree_util.GetAttrKey(name) for name in data]
    names = [*data, *static]
    read_data, read_static = _reader(data), _reader(static)

    def flatten(instance: _T) -> tuple[tuple, tuple]:
        return read_data(instance), read_static(instance)

    def flatten_with_keys(instance: _T) -> tuple[tuple, tuple]:
        return tuple(zip(keys, read_data(instance), strict=True)), read_static(instance)

    def unflatten(values: tuple, children: Iterable) -> _T:
        instance = object.__new__(cls)  # 0.7 us; the constructor, which sets frozen fields one by one, takes 1.8
        vars(instance).update(zip(names, (*children, *values), strict=True))
        return instance

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def _reader(names: list[str]) -> Callable[[Any], tuple]:
    """The attributes of these names, in a tuple: in one call into C, for every compiled function begins with it."""
    if not names:
        return lambda instance: ()
    read = operator.attrgetter(*names)
    return read if len(names) > 1 else lambda instance: (read(instance),)


def check(config: Any, prefix: str = "") -> None:
    """Raise BadInput, naming the field, for the first number of a dataclass that is outside its `Bounds` or NaN."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value) and not isinstance(value, nn.Module):
            check(value, name + ".")
        annotations = (field.type, *typing.get_args(field.type))  # of a union, each member
        metadata = [part for annotation in annotations for part in getattr(annotation, "__metadata__", ())]
        bounds = next((part for part in metadata if isinstance(part, Bounds)), Bounds())
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not bounds.low <= number <= bounds.high:
                limits = [f"at least {bounds.low:g}"] * (bounds.low > -np.inf)
                limits += [f"at most {bounds.high:g}"] * (bounds.high < np.inf)
                raise BadInput(f"{name} must be {' and '.join(limits) or 'a number'}, not {number}")
