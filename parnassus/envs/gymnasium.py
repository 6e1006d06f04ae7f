"""Gymnasium environments on the host, in this process or one process each."""

import difflib
import multiprocessing
import os
import pickle
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import error, spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.utils import create_empty_array

from parnassus.types import BadInput, HostStep, Tree

# As JAX keeps them.
_SINGLE: dict[Any, Any] = {np.dtype(np.float64): np.dtype(np.float32), np.dtype(np.int64): np.dtype(np.int32)}


class GymnasiumEnvs:
    """N copies of a Gymnasium environment, reset in the same step in which an episode ends (implements HostEnv).

    `env` is an id or a function that makes one environment; `options` go to either. With `asynchronous` each copy lives
    in a process of its own (a script that does so needs `if __name__ == "__main__":`), which pays when a step takes
    longer than half a millisecond. Numbers of 64 bits become 32. An exception that an environment raises passes
    through; `reset` then starts afresh.

    Raises BadInput for an unknown id or option, a missing package, or a function that makes something else.
    """

    def __init__(
        self,
        env: str | Callable[..., gymnasium.Env],
        num_envs: int = 1,
        asynchronous: bool = False,
        context: str = "forkserver",  # never "fork": JAX has threads, and a forked child may hang
        **options: Any,
    ) -> None:
        if num_envs < 1:
            raise BadInput(f"num_envs must be at least 1, not {num_envs}")
        self.num_envs = num_envs
        factory = partial(make_one, env, **options)
        self._envs = _Workers(factory, num_envs, context) if asynchronous else _InThisProcess(factory, num_envs)
        self.observation_space = in_single_precision(self._envs.observation_space)
        self.action_space = self._envs.action_space

    def reset(self, seeds: list[int]) -> Tree:
        """Start every environment afresh, environment i from seeds[i]. Leaves [N, ...]."""
        return self._envs.reset([int(seed) for seed in seeds])

    def step(self, actions: Tree) -> HostStep:
        """One step of every environment; actions [N, ...] in the environments' own units."""
        return self._envs.step(actions)

    def close(self) -> None:
        """Close the environments and their processes; may be called twice."""
        self._envs.close()


class _InThisProcess:
    """One environment after the other. Gymnasium's SyncVectorEnv adds half of CartPole's own time in joining infos."""

    def __init__(self, factory: Callable[[], gymnasium.Env], num_envs: int) -> None:
        self.envs = [factory() for _ in range(num_envs)]
        self.observation_space, self.action_space = self.envs[0].observation_space, self.envs[0].action_space
        self._empty = tree_map(single, create_empty_array(self.observation_space, num_envs))

    def reset(self, seeds: list[int]) -> Tree:
        observation = tree_map(np.empty_like, self._empty)
        for i, (env, seed) in enumerate(zip(self.envs, seeds, strict=True)):
            put_rows(observation, i, env.reset(seed=seed)[0])
        return observation

    def step(self, actions: Tree) -> HostStep:
        next_observation, fresh = tree_map(np.empty_like, self._empty), {}
        rewards, terminations, truncations = [], [], []
        if isinstance(self.action_space, spaces.Discrete):
            actions = actions.tolist()  # Gymnasium checks plain ints ten times as fast as NumPy's
        for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            observation, reward, terminated, truncated, _ = env.step(action)
            put_rows(next_observation, i, observation)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
            if terminated or truncated:
                fresh[i] = env.reset()[0]
        observation = next_observation
        if fresh:
            observation = tree_map(np.copy, next_observation)
            for i, first in fresh.items():
                put_rows(observation, i, first)
        return HostStep(
            observation,
            next_observation,
            np.array(rewards, np.float32),
            np.array(terminations, bool),
            np.array(truncations, bool),
        )

    def close(self) -> None:
        for env in self.envs:
            env.close()
        self.envs = []


class _Workers:
    """One process each, by Gymnasium's AsyncVectorEnv."""

    def __init__(self, factory: Callable[[], gymnasium.Env], num_envs: int, context: str) -> None:
        self._factory, self._num_envs, self._context = factory, num_envs, context
        self.envs: VectorEnv | None = self._start()
        self.observation_space = self.envs.single_observation_space
        self.action_space = self.envs.single_action_space

    def reset(self, seeds: list[int]) -> Tree:
        if self.envs is None:
            self.envs = self._start()
        try:
            observation, _ = self.envs.reset(seed=seeds)  # type: ignore[arg-type]
        except BaseException:
            self._abandon()
            raise
        return tree_map(_own, observation)

    def step(self, actions: Tree) -> HostStep:
        assert self.envs is not None, "reset comes first"
        try:
            observation, reward, terminated, truncated, info = self.envs.step(actions)
        except BaseException:
            self._abandon()
            raise
        next_observation = observation = tree_map(_own, observation)
        done = terminated | truncated
        if done.any():
            next_observation = tree_map(np.copy, observation)
            for i in np.flatnonzero(done):
                put_rows(next_observation, i, info["final_obs"][i])
        return HostStep(observation, next_observation, reward.astype(np.float32), terminated, truncated)

    def close(self) -> None:
        if self.envs is not None:
            self.envs.close()
        self.envs = None

    def _start(self) -> VectorEnv:
        if self._context == "forkserver":  # it imports JAX once, not each worker; of no effect once it runs
            multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
        factory = partial(_make_in_worker, self._factory, os.getpid())
        return AsyncVectorEnv(
            [factory] * self._num_envs, copy=False, context=self._context, autoreset_mode=AutoresetMode.SAME_STEP
        )

    def _abandon(self) -> None:
        """After an exception: stop workers whose pipes are out of step, without waiting for an answer from any."""
        if not isinstance(self.envs, AsyncVectorEnv):
            return
        for process in self.envs.processes:
            process.terminate()
        for process in self.envs.processes:
            process.join()
        for pipe in self.envs.parent_pipes:
            if pipe is not None:
                pipe.close()
        self.envs.closed = True
        self.envs = None


def make_one(env: str | Callable[..., gymnasium.Env], **options: Any) -> gymnasium.Env:
    """One environment, by id (`ALE/...` and `module:Name-v0` included) or from a function.

    Raises BadInput for an unknown id or option, a missing package, or a function that makes something else.
    """
    if not isinstance(env, str):
        made = env(**options)
        if not isinstance(made, gymnasium.Env):
            raise BadInput(f"{env!r} should make a gymnasium.Env, but made a {type(made).__name__}")
        return made
    # Gymnasium imports the module before the colon: Atari registers itself on import only, in every process.
    full_id = f"ale_py:{env}" if env.startswith("ALE/") else env
    try:
        return gymnasium.make(full_id, disable_env_checker=True, **options)
    except (error.DependencyNotInstalled, ModuleNotFoundError) as cause:
        raise BadInput(_missing_package(env, cause)) from cause
    except (error.UnregisteredEnv, error.DeprecatedEnv) as cause:
        raise BadInput(f"unknown Gymnasium environment {env!r}; {did_you_mean(env, gymnasium.registry)}") from cause
    except error.Error as cause:
        raise BadInput(f"Gymnasium cannot make {env!r}: {one_line(cause)}") from cause
    except TypeError as cause:
        if "unexpected keyword argument" not in str(cause):
            raise
        raise BadInput(f"{env} does not know an option of {options}: {one_line(cause)}") from cause


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The second half of a sentence about an unknown name: the close matches, or where to find all names."""
    by_lower_case = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(by_lower_case[match] for match in close)}?"
    return "`parnassus list environments` lists all"


def in_single_precision(space: gymnasium.Space) -> gymnasium.Space:
    """The space of the same observations after their conversion to 32 bits."""
    match space:
        case spaces.Dict():
            return spaces.Dict({key: in_single_precision(part) for key, part in space.spaces.items()})
        case spaces.Tuple():
            return spaces.Tuple([in_single_precision(part) for part in space.spaces])
        case spaces.Box() if space.dtype in _SINGLE:
            dtype = _SINGLE[space.dtype]
            if dtype.kind == "f":
                with np.errstate(over="ignore"):  # the largest doubles become infinite, which is what they mean
                    return spaces.Box(space.low.astype(dtype), space.high.astype(dtype), space.shape, dtype)
            limits = np.iinfo(dtype)
            low, high = (bound.clip(limits.min, limits.max).astype(dtype) for bound in (space.low, space.high))
            return spaces.Box(low, high, space.shape, dtype)
    return space


class _InWorker(gymnasium.Wrapper):
    """What a worker's environment sends home: no `info` (nothing reads it), the last observation as it was (the reset
    that follows may write into the same array), and only exceptions that survive the way: Gymnasium would wait forever
    for others."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        with _portable():
            return self.env.reset(**kwargs)[0], {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict]:
        with _portable():
            observation, reward, terminated, truncated, _ = self.env.step(action)
        if terminated or truncated:
            observation = deepcopy(observation)
        return observation, reward, terminated, truncated, {}


@contextmanager
def _portable() -> Iterator[None]:
    try:
        yield
    except Exception as cause:
        if not _is_portable(cause):
            raise RuntimeError(f"{type(cause).__name__}: {cause}") from cause
        raise


def _is_portable(error: Exception) -> bool:
    """Whether Gymnasium can pickle it here, and there raise `type(error)(error)`."""
    try:
        type(error)(pickle.loads(pickle.dumps(error)))
    except Exception:
        return False
    return type(error).__module__ != "__mp_main__"  # what a worker calls the parent's __main__


def _make_in_worker(factory: Callable[[], gymnasium.Env], parent: int) -> gymnasium.Env:
    """Also called once in the parent, for the spaces."""
    if os.getpid() != parent and threading.current_thread() is threading.main_thread():
        # Control-C reaches every process of the terminal; it is the parent that decides when to stop.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return _InWorker(factory())


def _missing_package(env: str, cause: Exception) -> str:
    extra = re.search(r"gymnasium\[([\w-]+)\]", str(cause))
    if extra or env.startswith("ALE/"):
        name = extra.group(1) if extra else "atari"
        return f'{env} needs a package that is not installed: pip install "parnassus[{name}]"'
    return f"{env} cannot be made: {one_line(cause)}"


def one_line(cause: Exception) -> str:
    return " ".join(str(cause).split())


def tree_map(function: Callable[[np.ndarray], np.ndarray], tree: Tree) -> Tree:
    """jax.tree.map without its two microseconds, and keys stay in the space's order."""
    if isinstance(tree, np.ndarray):
        return function(tree)
    if isinstance(tree, dict):
        return {key: tree_map(function, part) for key, part in tree.items()}
    return tuple(tree_map(function, part) for part in tree) if isinstance(tree, tuple) else tree


def single(array: np.ndarray) -> np.ndarray:
    """The array in 32 bits; itself, if that is what it has."""
    return array.astype(_SINGLE.get(array.dtype, array.dtype), copy=False)


def put_rows(batch: Tree, rows: int | np.ndarray | np.integer, observation: Tree) -> None:
    """Write observations into rows of a batch, in place."""
    if isinstance(batch, dict):
        for key, part in batch.items():
            put_rows(part, rows, observation[key])
    elif isinstance(batch, tuple):
        for part, one in zip(batch, observation, strict=True):
            put_rows(part, rows, one)
    else:
        batch[rows] = observation


def _own(array: np.ndarray) -> np.ndarray:
    """A copy for the caller, in 32 bits."""
    return array.astype(_SINGLE.get(array.dtype, array.dtype))
