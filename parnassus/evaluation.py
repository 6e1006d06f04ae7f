"""How good a policy is: full episodes without exploration, each environment contributing a fixed number of them.

Taking the first episodes that end, whichever environment they end in, would favour short ones.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from parnassus.collect import HostCollector, as_numpy, compiled_act, is_on_host
from parnassus.compilation import Program
from parnassus.rollout import EnvActor, reset, rollout, where
from parnassus.statistics import mean_interval
from parnassus.types import Algorithm, BadInput, Behavior, Env, HostEnv, Key, Spec, TrainingFailed, Transition

_BLOCK = 128  # steps per compiled call on a JAX environment


class Evaluation(NamedTuple):
    """The episodes of an evaluation, in the order of the environments."""

    returns: Float[np.ndarray, "E"]  # undiscounted
    lengths: Int[np.ndarray, "E"]

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """A 95% interval of the mean return."""
        _, low, high = mean_interval(self.returns)
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"return {self.mean:.2f} (95% interval {low:.2f} to {high:.2f}), "
            f"length {self.lengths.mean():.1f}, {len(self.returns)} episodes"
        )


def evaluate(
    algorithm: Algorithm,
    behavior: Behavior,
    env: Env | HostEnv,
    episodes: int = 100,
    seed: int = 0,
    max_episode_steps: int = 1_000_000,
    explore: bool = False,
) -> Evaluation:
    """The returns of `episodes` episodes of the policy without exploration, or with the exploration of training.

    Raises BadInput for a number of episodes below 1, TrainingFailed for an episode longer than `max_episode_steps`.
    """
    if episodes < 1:
        raise BadInput(f"episodes must be at least 1, not {episodes}")
    run: Callable = _on_host if is_on_host(env) else _compiled
    returns, lengths = run(algorithm, behavior, env, episodes, jax.random.key(seed), max_episode_steps, explore)
    return Evaluation(returns, lengths)


def _compiled(
    algorithm: Algorithm, behavior: Behavior, env: Env, episodes: int, key: Key, max_steps: int, explore: bool
) -> tuple[np.ndarray, np.ndarray]:
    """One environment for each episode."""
    spec = Spec(env.observation_space, env.action_space, episodes)
    key, reset_key = jax.random.split(key)
    actor = reset(env, reset_key, algorithm.initial_memory(spec), episodes)
    returns, lengths, running = np.zeros(episodes), np.zeros(episodes, int), np.ones(episodes, bool)
    while running.any():
        key, block_key = jax.random.split(key)
        actor, reward, done = _block(algorithm, behavior, env, actor, block_key, spec, explore)
        for r, ended in zip(np.asarray(reward), np.asarray(done), strict=True):
            returns[running] += r[running]
            lengths[running] += 1
            running &= ~ended
        _check_length(lengths, max_steps)
    return returns, lengths


@partial(Program, static_argnames=("spec", "explore"))
def _block(
    algorithm: Algorithm, behavior: Behavior, env: Env, actor: EnvActor, key: Key, spec: Spec, explore: bool
) -> tuple[EnvActor, Array, Array]:
    act = lambda memory, observation, act_key: algorithm.act(behavior, memory, observation, act_key, explore)  # noqa: E731
    trajectory: Transition
    actor, trajectory = rollout(env, act, actor, algorithm.initial_memory(spec), key, _BLOCK)
    return actor, trajectory.reward, trajectory.done


def _on_host(
    algorithm: Algorithm, behavior: Behavior, env: HostEnv, episodes: int, key: Key, max_steps: int, explore: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Environment n plays its share of the episodes, one after the other."""
    num_envs = env.num_envs
    key, begin_key = jax.random.split(key)
    collector = HostCollector(env)
    observation, memory, _ = collector.begin(algorithm, None, begin_key)
    has_memory = bool(jax.tree.leaves(memory))
    act, key = compiled_act(collector.spec, explore, algorithm, behavior), jax.random.key_data(key)
    quota = np.full(num_envs, episodes // num_envs) + (np.arange(num_envs) < episodes % num_envs)
    returns: list[list[float]] = [[] for _ in range(num_envs)]
    lengths: list[list[int]] = [[] for _ in range(num_envs)]
    running_return, running_length = np.zeros(num_envs), np.zeros(num_envs, int)
    while any(len(returns[n]) < quota[n] for n in range(num_envs)):
        action, _, memory, _, key = act(memory, observation, key)
        try:
            after = env.step(as_numpy(action))
        except Exception as error:
            raise TrainingFailed(f"the environment raised {type(error).__name__}: {error}") from error
        running_return += after.reward
        running_length += 1
        done = after.terminated | after.truncated
        for n in np.flatnonzero(done):
            if len(returns[n]) < quota[n]:
                returns[n].append(running_return[n])
                lengths[n].append(running_length[n])
            running_return[n], running_length[n] = 0.0, 0
        _check_length(running_length, max_steps)
        observation = after.observation
        if has_memory and done.any():
            memory = where(jnp.asarray(done), algorithm.initial_memory(collector.spec), memory)
    return np.array([x for of_env in returns for x in of_env]), np.array([x for of_env in lengths for x in of_env])


def _check_length(lengths: np.ndarray, max_steps: int) -> None:
    if lengths.max() > max_steps:
        raise TrainingFailed(
            f"an evaluation episode did not end within {max_steps:,} steps; give the environment a time limit"
        )
