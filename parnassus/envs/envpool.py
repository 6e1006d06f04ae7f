"""EnvPool: environments in C++, stepped by threads."""

import os
import warnings
from typing import Any

import gymnasium
import numpy as np

from parnassus.envs.gymnasium import did_you_mean, in_single_precision, one_line, put_rows, single, tree_map
from parnassus.types import BadInput, HostStep, Tree


class EnvPoolEnvs:
    """N environments of EnvPool, reset in the same step in which an episode ends (implements HostEnv).

    Left alone, EnvPool spends the step after an episode's last on the reset; `reset(ids)` of those that just ended
    brings their first observations at once instead. A pool takes its seeds when it is built, so every `reset` builds
    one (2 ms for 8 CartPoles, 17 ms for 8 HalfCheetahs). Numbers of 64 bits become 32.

    EnvPool tells one reason why an episode ended: termination in the very step of the time limit counts as truncation.

    `num_threads` is by default one for each core that this process may use, and at most N. Where these are all of the
    machine's cores, each thread is tied to one (`thread_affinity_offset=-1` leaves them free). `options` go to
    `envpool.make_gymnasium`. Raises BadInput for an unknown name or option, for a game of several players, or if
    envpool is not installed.
    """

    def __init__(self, name: str, num_envs: int = 1, num_threads: int | None = None, **options: Any) -> None:
        if num_envs < 1:
            raise BadInput(f"num_envs must be at least 1, not {num_envs}")
        known = names()
        if not known:
            raise BadInput('EnvPool environments need EnvPool: pip install "parnassus[envpool]"')
        if name not in known:
            raise BadInput(f"unknown EnvPool environment {name!r}; {did_you_mean(name, known)}")
        threads = min(num_envs, _cores()) if num_threads is None else num_threads
        self.num_envs = num_envs
        self._name = name
        # A tenth to a quarter faster: threads wake up where their environments are cached.
        tied = {"thread_affinity_offset": 0} if threads == _cores() == os.cpu_count() else {}
        # A batch of all N makes EnvPool wait for all and keep them in order.
        self._options = {**tied, **options, "num_envs": num_envs, "batch_size": num_envs, "num_threads": threads}
        self._pool: Any = None
        self._read_spaces(options)

    def _read_spaces(self, options: dict[str, Any]) -> None:
        import envpool

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EnvPool writes the bounds of float32 spaces as doubles
            try:
                spec = envpool.make_spec(self._name, **self._options)
            except (TypeError, AssertionError, ValueError) as cause:
                reason = str(cause).splitlines()[0] if str(cause) else "it is out of range"
                raise BadInput(f"envpool:{self._name} does not accept the options {options}: {reason}") from cause
            except ImportError as cause:
                raise BadInput(f"envpool:{self._name} cannot be made: {one_line(cause)}") from cause
            self.observation_space: gymnasium.Space = in_single_precision(spec.gymnasium_observation_space)
            self.action_space: gymnasium.Space = spec.gymnasium_action_space
        if spec.config.max_num_players > 1:
            raise BadInput(f"envpool:{self._name} is a game of several players; environments here have one")
        self._action_dtype = spec.action_array_spec["action"].dtype

    def reset(self, seeds: list[int]) -> Tree:
        """Build a new pool, environment i from seeds[i] (modulo 2^31, EnvPool's range). Leaves [N, ...]."""
        import envpool

        seeds = [int(seed) % 2**31 for seed in seeds]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._pool = envpool.make_gymnasium(self._name, seed=seeds, **self._options)
            observation, _ = self._pool.reset()
        return tree_map(single, observation)

    def step(self, actions: np.ndarray) -> HostStep:
        """One step of every environment; actions [N, ...] in the environments' own units. Call `reset` first."""
        observation, reward, terminated, truncated, _ = self._pool.step(actions.astype(self._action_dtype, copy=False))
        next_observation = observation = tree_map(single, observation)
        ended = np.flatnonzero(terminated | truncated)
        if ended.size:
            fresh, info = self._pool.reset(ended.astype(np.int32))
            observation = tree_map(np.copy, next_observation)
            put_rows(observation, info["env_id"], fresh)
        return HostStep(observation, next_observation, reward.astype(np.float32, copy=False), terminated, truncated)

    def close(self) -> None:
        """Stop the threads; may be called twice."""
        self._pool = None


def names() -> list[str]:
    """All names that EnvPool knows; none if it is not installed."""
    try:
        import envpool
    except ImportError:
        return []
    return list(envpool.list_all_envs())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
