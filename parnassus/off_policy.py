"""What the algorithms with a replay share: the experience that it keeps, when gradient steps are taken, and how a
deterministic policy acts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces
from jaxtyping import Array, Bool, Float, Int

from parnassus.encoding import Encoder, zeros
from parnassus.exploration import GaussianNoise, OrnsteinUhlenbeck
from parnassus.networks import DeterministicPolicy, Network
from parnassus.replay import Replay
from parnassus.schedules import Progress
from parnassus.types import BadInput, Key, Learner, Memory, Metrics, Spec, Transition, Tree

# (learner without its replay, the replay, key) -> (learner, metrics): one gradient step on a minibatch of its choice
GradientStep = Callable[[Any, Replay, Key], tuple[Any, Metrics]]


class Experience(NamedTuple):
    """What a replay keeps of a step, or of m steps in a row."""

    observation: Tree  # o_t
    action: Tree  # a_t
    reward: Float[Array, "*batch"]  # r_{t+1} + gamma r_{t+2} + ... + gamma^{m-1} r_{t+m}
    next_observation: Tree  # o_{t+m}
    discount: Float[Array, "*batch"]  # of the value of o_{t+m}: gamma^m, or 0 where it is terminal


def example(spec: Spec) -> Experience:
    """A step of the right shapes and dtypes, all zero, leaves [1, ...]."""
    observation, action = zeros(spec.observation_space, (1,)), jnp.asarray(zeros(spec.action_space, (1,)))
    return Experience(observation, action, jnp.zeros(1), observation, jnp.zeros(1))


def create_replay(spec: Spec, capacity: int) -> Replay:
    """An empty replay for `Experience` there."""
    return Replay.create(jax.tree.map(lambda x: x[0], example(spec)), capacity)


def experience(trajectory: Transition, discount: float | Array, n: int = 1) -> Experience:
    """The n-step transitions of a trajectory, leaves [T, N, ...]; see `look_ahead`."""
    o, a, r, next_o, terminated, _, _ = trajectory
    if n == 1:
        return Experience(o, a, r, next_o, discount * (1.0 - terminated))
    total, factor, last = look_ahead(trajectory, discount, n)
    successor = jax.tree.map(lambda x: x[last, jnp.arange(r.shape[1])], next_o)
    return Experience(o, a, total, successor, factor)


def look_ahead(
    trajectory: Transition, discount: float | Array, n: int
) -> tuple[Float[Array, "T N"], Float[Array, "T N"], Int[Array, "T N"]]:
    """The first n rewards' sum, the discount of what comes after them, and the last step they come from. [T, N]

    r_{t+1} + gamma r_{t+2} + ... + gamma^{m-1} r_{t+m}; gamma^m, or 0 where o_{t+m} is terminal; t + m - 1 (Sutton and
    Barto 2018, eq. 7.1). m is n or, if that is shorter, the way to the end of the episode or of the trajectory: nothing
    is summed or looked up past either.
    """
    reward, terminated = trajectory.reward, trajectory.terminated
    one_step = discount * (1.0 - terminated)
    time = jnp.broadcast_to(jnp.arange(len(reward))[:, None], reward.shape)
    ends = trajectory.done.at[-1].set(True)

    def look_one_step_further(_: Array, found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        total, factor, last = (jnp.roll(x, -1, axis=0) for x in found)
        return (
            jnp.where(ends, reward, reward + discount * total),
            jnp.where(ends, one_step, discount * factor),
            jnp.where(ends, time, last),
        )

    return jax.lax.fori_loop(0, min(n, len(reward)) - 1, look_one_step_further, (reward, one_step, time))


def remember(learner: Learner, trajectory: Transition, discount: float | Array, n: int = 1) -> Learner:
    """The learner after its replay, its statistics and its progress have seen a trajectory, leaves [T, N, ...]."""
    if isinstance(learner.replay, Replay):
        replay = learner.replay.add(experience(trajectory, discount, n))
    else:  # one of frames, which looks at the trajectory itself
        replay = learner.replay.add(trajectory, discount, n)
    return learner._replace(
        replay=replay,
        encoder=learner.encoder.update(trajectory.observation),
        progress=learner.progress.advance(trajectory.reward),
    )


def improve(
    learner: Learner, step: GradientStep, key: Key, num_steps: int, ready: Bool[Array, ""]
) -> tuple[Learner, Metrics]:
    """`num_steps` gradient steps and the means of their metrics; before `ready` none, and NaN."""
    # The replay stays outside the `cond`: what a branch returns is copied where seeds are vmapped.
    replay, slim = learner.replay, learner._replace(replay=None)
    keys = jax.random.split(key, num_steps)
    train = lambda slim: jax.lax.scan(lambda slim, key: step(slim, replay, key), slim, keys)  # noqa: E731
    nothing = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan), jax.eval_shape(train, slim)[1])
    slim, metrics = jax.lax.cond(ready, train, lambda slim: (slim, nothing), slim)
    return slim._replace(replay=replay), {name: metric.mean() for name, metric in metrics.items()}


class DeterministicBehavior(NamedTuple):
    policy: Network
    encoder: Encoder
    progress: Progress


def create_deterministic_policy(
    key: Key, spec: Spec, encoder: Encoder, torso: nn.Module, initial_weights: str = "normal"
) -> Network:
    """mu(o). Raises BadInput if the action space is not a Box."""
    space = spec.action_space
    if not isinstance(space, spaces.Box):
        raise BadInput(f"a deterministic policy needs a continuous (Box) action space, not {space}")
    module = DeterministicPolicy(torso, space.shape, initial_weights)
    return Network.create(module, key, encoder(example(spec).observation))


def act_with_noise(
    behavior: DeterministicBehavior,
    noise: GaussianNoise | OrnsteinUhlenbeck,
    learning_starts: int,
    memory: Memory,
    observation: Tree,
    key: Key,
    explore: bool,
) -> tuple[Float[Array, "N *a"], Memory, dict[str, Tree]]:
    """clip(mu(o) + noise), and uniform draws for the first `learning_starts` steps; mu(o) where not exploring."""
    action = behavior.policy(behavior.encoder(observation))
    if not explore:
        return action, memory, {}
    noise_key, uniform_key = jax.random.split(key)
    disturbance, memory = noise(memory, action, noise_key, behavior.progress)
    uniform = uniform_actions(uniform_key, action)
    starting = behavior.progress.steps < learning_starts
    return jnp.where(starting, uniform, jnp.clip(action + disturbance, -1.0, 1.0)), memory, {}


def uniform_actions(key: Key, like: Float[Array, "N *a"]) -> Float[Array, "N *a"]:
    """Actions drawn evenly from [-1, 1]."""
    return jax.random.uniform(key, like.shape, minval=-1.0, maxval=1.0)


def flat(action: Float[Array, "B *a"]) -> Float[Array, "B n"]:
    """Actions as vectors, for `Critics`."""
    return action.reshape(action.shape[0], -1)
