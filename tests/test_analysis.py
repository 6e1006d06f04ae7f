"""Discounted returns against stepping by hand, on both kinds of environment; states put back from observations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus import analysis
from parnassus.algorithms.ddpg import DDPG
from parnassus.algorithms.double_q import DoubleQ
from parnassus.algorithms.dqn import DQN
from parnassus.algorithms.td3 import TD3
from parnassus.analysis import pendulum_state, set_mujoco_state, value_bias
from parnassus.envs.classic import Pendulum
from parnassus.envs.wrap import AsGymnasium, as_gymnasium
from parnassus.types import BadInput, Spec, Transition

ENV = Pendulum()
SPEC = Spec(ENV.observation_space, ENV.action_space, 1)


def states(count: int) -> jax.Array:
    angle, speed = jnp.linspace(-3.0, 3.0, count), jnp.linspace(-2.0, 2.0, count)
    return jnp.stack([jnp.cos(angle), jnp.sin(angle), speed], axis=-1)


def test_a_pendulum_is_put_back() -> None:
    """Its observation is the one it was made from, and so is its future."""
    state, observation = ENV.reset(jax.random.key(0))
    again = pendulum_state(observation)
    one, other = (ENV.step(s, jnp.array([0.7]), jax.random.key(1)) for s in (state, again))
    np.testing.assert_allclose(one.observation, other.observation, atol=1e-5)
    assert one.reward == pytest.approx(float(other.reward), rel=1e-5)


@pytest.mark.parametrize("host", [False, True])
def test_returns_are_discounted_sums_from_these_states(host: bool) -> None:
    algorithm = DDPG(hidden_sizes=(8,), discount=0.9, replay_size=10)
    learner = algorithm.init(jax.random.key(0), SPEC)
    starts = states(3)

    def restore(env: AsGymnasium, observation: np.ndarray) -> None:
        env.state = pendulum_state(jnp.asarray(observation))

    if host:
        arguments = (lambda: as_gymnasium(ENV), np.asarray(starts), restore)
        found = analysis._on_host(algorithm, algorithm.behavior(learner), *arguments, jax.random.key(1), 40)
    else:
        behavior = algorithm.behavior(learner)
        found = analysis._compiled(algorithm, behavior, ENV, starts, pendulum_state, jax.random.key(1), 40)
    for i in range(3):
        state, observation, total = pendulum_state(starts[i]), starts[i], 0.0
        for t in range(40):
            action = 2.0 * learner.policy(observation[None])[0]  # torques are twice the policy's actions
            after = ENV.step(state, action, jax.random.key(0))
            total += 0.9**t * float(after.reward)
            state, observation = after.state, after.observation
        assert found[i] == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize("cls", [DDPG, DoubleQ, TD3])
def test_bias_is_the_difference_of_the_two_means(cls: type) -> None:
    algorithm = cls(hidden_sizes=(8,), discount=0.5, replay_size=6)
    learner = algorithm.init(jax.random.key(0), SPEC)
    o = states(6)[:, None]
    flags = jnp.zeros((6, 1), bool)
    step = Transition(o, jnp.zeros((6, 1, 1)), jnp.zeros((6, 1)), o, flags, flags, {})
    learner = learner._replace(replay=learner.replay.add(_experience(step)))
    bias = value_bias(algorithm, learner, ENV, pendulum_state, jax.random.key(0), 500, 400, 30)
    values = algorithm.greedy_value(learner, states(6))
    assert bias.estimated.mean == pytest.approx(float(values.mean()), abs=4 * float(values.std()) / np.sqrt(500) + 1e-4)
    low, high = bias.returned.low, bias.returned.high
    assert low < bias.returned.mean < high < 0.0
    assert bias.overestimation == bias.estimated.mean - bias.returned.mean > 0.0  # a fresh critic promises about 0


def _experience(step: Transition) -> object:
    from parnassus.off_policy import experience

    return experience(step, 0.5)


def test_a_termination_ends_the_sum() -> None:
    """CartPole pays 1 a step until it falls: the sum is that of the steps it stood."""
    from parnassus.envs.classic import CartPole, CartPoleState

    env, algorithm = CartPole(), DQN(hidden_sizes=(), discount=0.5, replay_size=4)
    spec = Spec(env.observation_space, spaces.Discrete(2), 1)
    learner = algorithm.init(jax.random.key(0), spec)
    fallen = jnp.array([[0.0, 0.0, 0.2, 3.0], [2.3, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    restore = lambda o: CartPoleState(*o, jnp.zeros((), jnp.int32))  # noqa: E731
    found = analysis._compiled(algorithm, algorithm.behavior(learner), env, fallen, restore, jax.random.key(0), 400)
    np.testing.assert_allclose(found[:2], [1.0, 1.75], atol=0.26)
    assert 1.9 < found[2] <= 2.0


@pytest.mark.parametrize("name", ["Hopper-v5", "Walker2d-v5", "HalfCheetah-v5"])
def test_mujoco_is_put_back(name: str) -> None:
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("mujoco")
    one, other = gymnasium.make(name), gymnasium.make(name)
    observation, _ = one.reset(seed=3)
    for _ in range(5):
        observation, *_ = one.step(one.action_space.sample() * 0.1)
    other.reset(seed=9)
    set_mujoco_state(other, observation)
    for _ in range(3):
        action = 0.1 * one.action_space.sample()
        (a, reward_a, *_), (b, reward_b, *_) = one.step(action), other.step(action)
        np.testing.assert_allclose(a, b, atol=1e-6)
        assert reward_a == pytest.approx(reward_b, abs=1e-4)
    one.close(), other.close()


def test_observations_of_another_kind_are_refused() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("InvertedDoublePendulum-v5")
    observation, _ = env.reset(seed=0)
    with pytest.raises(BadInput, match="is not made of positions and velocities"):
        set_mujoco_state(env, observation)
    env.close()
