"""Are values true? The experiment of Fujimoto, van Hoof & Meger 2018, figures 1 and 2, for any Q-learning method."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from parnassus.collect import as_numpy, compiled_act
from parnassus.rollout import env_action
from parnassus.statistics import MeanInterval, mean_interval
from parnassus.types import Algorithm, BadInput, Behavior, Env, Key, Learner, Spec, Tree


class ValueBias(NamedTuple):
    """What a critic says, and what came."""

    estimated: MeanInterval  # Q(o, pi(o)) over observations of the replay
    returned: MeanInterval  # discounted returns of episodes of pi from observations of the replay

    @property
    def overestimation(self) -> float:
        """How much more the critic promises than comes."""
        return self.estimated.mean - self.returned.mean


def value_bias(
    algorithm: Any,
    learner: Learner,
    env: Env | Callable[[], gymnasium.Env],
    restore: Callable,
    key: Key,
    states: int = 10_000,
    episodes: int = 1_000,
    max_steps: int = 1_000,
) -> ValueBias:
    """The mean value of `states` observations of the replay beside the mean discounted return from `episodes` of them.

    `algorithm` has `greedy_value(learner, encoded observation)`, a `discount` and a replay: DQN, DDPG, DoubleQ or TD3.
    The policy acts without exploration until an episode terminates, or for `max_steps`, beyond which discounting leaves
    little; time limits are ignored, as in what the critic learns. `restore` starts an episode from an observation: for
    a JAX environment it maps one to a state, for a function that makes a Gymnasium environment it is called with the
    environment, after a reset, and the observation; see `pendulum_state`, `set_mujoco_state`.
    """
    state_key, start_key, play_key = jax.random.split(key, 3)
    observations = learner.replay.sample(state_key, states).observation
    starts = learner.replay.sample(start_key, episodes).observation
    values = algorithm.greedy_value(learner, learner.encoder(observations))
    play: Callable = _on_host if callable(env) and not isinstance(env, Env) else _compiled
    returns = play(algorithm, algorithm.behavior(learner), env, starts, restore, play_key, max_steps)
    return ValueBias(mean_interval(np.asarray(values)), mean_interval(np.asarray(returns)))


@partial(jax.jit, static_argnames=("restore", "max_steps"))
def _compiled(
    algorithm: Any, behavior: Behavior, env: Env, starts: Tree, restore: Callable, key: Key, max_steps: int
) -> Float[Array, "E"]:
    """All episodes side by side."""
    num_envs = len(jax.tree.leaves(starts)[0])
    memory = algorithm.initial_memory(Spec(env.observation_space, env.action_space, num_envs))

    def step(carry: tuple, key: Key) -> tuple[tuple, None]:
        state, observation, memory, weight, total = carry
        act_key, step_key = jax.random.split(key)
        action, memory, _ = algorithm.act(behavior, memory, observation, act_key, False)
        physical = env_action(env.action_space, action)
        after = jax.vmap(env.step)(state, physical, jax.random.split(step_key, num_envs))
        total = total + weight * after.reward
        weight = weight * algorithm.discount * (1.0 - after.terminated)
        return (after.state, after.observation, memory, weight, total), None

    start = jax.vmap(restore)(starts), starts, memory, jnp.ones(num_envs), jnp.zeros(num_envs)
    (_, _, _, _, total), _ = jax.lax.scan(step, start, jax.random.split(key, max_steps))
    return total


def _on_host(
    algorithm: Algorithm, behavior: Behavior, make: Callable, starts: Tree, restore: Callable, key: Key, max_steps: int
) -> Float[np.ndarray, "E"]:
    """All episodes side by side, the environments of those that go on stepped one after the other."""
    num_envs = len(jax.tree.leaves(starts)[0])
    envs = [make().unwrapped for _ in range(num_envs)]
    observation = np.array(starts)
    for env, start in zip(envs, observation, strict=True):
        env.reset(seed=0)
        restore(env, start)
    spec = Spec(envs[0].observation_space, envs[0].action_space, num_envs)
    act, raw_key = compiled_act(spec, False, algorithm, behavior), jax.random.key_data(key)
    memory, weight, total = algorithm.initial_memory(spec), np.ones(num_envs), np.zeros(num_envs)
    for _ in range(max_steps):
        physical, _, memory, _, raw_key = act(memory, observation, raw_key)
        actions = as_numpy(physical)
        for i in np.flatnonzero(weight):
            observation[i], reward, terminated, _, _ = envs[i].step(actions[i])
            total[i] += weight[i] * reward
            weight[i] *= 0.0 if terminated else float(algorithm.discount)  # type: ignore[attr-defined]
        if not weight.any():
            break
    for env in envs:
        env.close()
    return total


def pendulum_state(observation: Float[Array, "3"]) -> Any:
    """The state of `jax:Pendulum-v1` that looks like this."""
    from parnassus.envs.classic import PendulumState

    cosine, sine, speed = observation
    return PendulumState(jnp.arctan2(sine, cosine), speed, jnp.zeros((), jnp.int32))


def set_mujoco_state(env: gymnasium.Env, observation: np.ndarray) -> None:
    """Put a MuJoCo environment of Gymnasium where an observation of positions and velocities says.

    What it leaves out (where along the track the robot is, in Hopper, Walker2d and HalfCheetah) becomes 0, on which
    nothing depends. Raises BadInput where the observation is something else.
    """
    model = env.unwrapped.model  # type: ignore[attr-defined]
    missing = model.nq + model.nv - observation.size
    if not 0 <= missing <= 2:
        raise BadInput(f"the observation of {env} is not made of positions and velocities")
    positions = model.nq - missing
    env.unwrapped.set_state(  # type: ignore[attr-defined]
        np.concatenate([np.zeros(missing), observation[:positions]]), np.asarray(observation[positions:], np.float64)
    )
