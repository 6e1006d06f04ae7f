"""CartPole and Pendulum against Gymnasium's, step by step from the same states, in single precision."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.envs.classic import CartPole, CartPoleState, CartPoleSwingUp, Pendulum, PendulumState
from parnassus.types import Env

STEPS = 3000
# Gymnasium computes in double precision. From the same float32 state, one step differs by rounding alone.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def gymnasium_steps(name, actions, reset_options=None):
    """Random episodes: (state before, time before, observation, reward, terminated, truncated) of each step."""
    env = gymnasium.make(name, disable_env_checker=True)
    env.reset(seed=0, options=reset_options)
    steps, time = [], 0
    for action in actions:
        before = np.asarray(env.unwrapped.state, np.float32)
        env.unwrapped.state = before.astype(np.float64)  # both sides start from a state that float32 can hold
        observation, reward, terminated, truncated, _ = env.step(action)
        steps.append((before, time, observation, reward, terminated, truncated))
        time += 1
        if terminated or truncated:
            env.reset()
            time = 0
    return [np.asarray(column) for column in zip(*steps, strict=True)]


def ours(env, state, actions):
    keys = jax.random.split(jax.random.key(0), len(actions))
    return jax.jit(jax.vmap(env.step))(state, jnp.asarray(actions), keys)


def test_cartpole_equals_gymnasium():
    actions = np.random.default_rng(0).integers(0, 2, STEPS)
    before, time, observation, reward, terminated, truncated = gymnasium_steps("CartPole-v1", actions)
    step = ours(CartPole(), CartPoleState(*before.T, time=jnp.asarray(time, jnp.int32)), actions)
    np.testing.assert_allclose(step.observation, observation, **CLOSE)
    np.testing.assert_array_equal(step.reward, reward)
    np.testing.assert_array_equal(step.terminated, terminated)
    np.testing.assert_array_equal(step.truncated, truncated)
    assert terminated.sum() > 100  # the interesting cases happened


def test_cartpole_time_limit_equals_gymnasium():
    """A controller keeps the pole up to the limit, and leaves the track in the last step: both flags are true."""
    env = gymnasium.make("CartPole-v1", disable_env_checker=True)
    observation, _ = env.reset(seed=0)
    step = jax.jit(CartPole().step)
    for time in range(500):
        x, x_dot, theta, theta_dot = observation
        action = int(theta + 0.5 * theta_dot + 0.05 * x + 0.1 * x_dot > 0)
        before = np.float32([2.5, 0.0, 0.0, 0.0] if time == 499 else observation)
        env.unwrapped.state = before.astype(np.float64)
        observation, _, terminated, truncated, _ = env.step(action)
        after = step(CartPoleState(*before, time=np.int32(time)), action, jax.random.key(0))
        assert (bool(after.terminated), bool(after.truncated)) == (terminated, truncated) == ((time == 499,) * 2)


def test_pendulum_equals_gymnasium():
    actions = np.random.default_rng(0).uniform(-3, 3, (STEPS, 1)).astype(np.float32)  # beyond the bounds too
    before, time, observation, reward, terminated, truncated = gymnasium_steps("Pendulum-v1", actions)
    step = ours(Pendulum(), PendulumState(*before.T, time=jnp.asarray(time, jnp.int32)), actions)
    np.testing.assert_allclose(step.observation, observation, **CLOSE)
    np.testing.assert_allclose(step.reward, reward, rtol=1e-4, atol=1e-4)  # the squared angle near pi
    np.testing.assert_array_equal(step.terminated, terminated)
    np.testing.assert_array_equal(step.truncated, truncated)
    assert truncated.sum() == STEPS // 200


def test_pendulum_at_full_speed():
    """The speed's bound, which random torques seldom reach."""
    env = gymnasium.make("Pendulum-v1", disable_env_checker=True)
    env.reset(seed=0)
    env.unwrapped.state = np.array([2.0, 7.9])
    observation, reward, *_ = env.step(np.array([2.0], np.float32))
    state = PendulumState(jnp.float32(2.0), jnp.float32(7.9), jnp.zeros((), jnp.int32))
    step = Pendulum().step(state, jnp.array([2.0]), jax.random.key(0))
    np.testing.assert_allclose(step.observation, observation, **CLOSE)
    np.testing.assert_allclose(step.reward, reward, **CLOSE)
    assert observation[2] == 8.0


def test_a_continuous_cartpole_is_pushed_by_a_share_of_the_force():
    """At the ends of its range it is the discrete one; beyond them too; half an action is half the force."""
    env, key = CartPole(continuous=True), jax.random.key(0)
    state, _ = env.reset(jax.random.key(1))
    for action, discrete in ((-1.0, 0), (1.0, 1), (3.0, 1)):
        after = env.step(state, jnp.array([action]), key)
        np.testing.assert_array_equal(after.observation, CartPole().step(state, jnp.int32(discrete), key).observation)
    half = env.step(state, jnp.array([0.5]), key).observation
    np.testing.assert_array_equal(half, CartPole(force=5.0).step(state, jnp.int32(1), key).observation)


SWING_UP = """
<mujoco>
  <option timestep="0.01" integrator="RK4"><flag contact="disable"/></option>
  <worldbody>
    <body name="cart">
      <joint name="slider" type="slide" axis="1 0 0" damping="5e-4"/>
      <geom type="box" size="0.2 0.15 0.1" mass="1"/>
      <body name="pole">
        <joint name="hinge" type="hinge" axis="0 1 0" damping="2e-6"/>
        <geom type="capsule" fromto="0 0 0 0 0 1" size="0.045" mass="0.1"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="slider" gear="10" ctrllimited="true" ctrlrange="-1 1"/></actuator>
</mujoco>
"""  # the control suite's model, but for its track's ends


def test_the_swing_up_moves_as_in_mujoco():
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_string(SWING_UP)
    data = mujoco.MjData(model)
    random = np.random.default_rng(0)
    starts = random.uniform([-1, -3, -4, -9], [1, 3, 4, 9], (100, 4)).astype(np.float32)
    actions = random.uniform(-1.5, 1.5, (100, 1)).astype(np.float32)
    wanted = []
    for (x, x_dot, theta, theta_dot), action in zip(starts, actions, strict=True):
        data.qpos[:], data.qvel[:], data.ctrl[:] = [x, theta], [x_dot, theta_dot], action
        mujoco.mj_step(model, data)
        wanted.append([data.qpos[0], *data.qvel, data.qpos[1]])
    time = jnp.zeros(len(starts), jnp.int32)
    after = ours(CartPoleSwingUp(), CartPoleState(*starts.T, time=time), actions)
    got = np.stack([after.state.x, after.state.x_dot, after.state.theta_dot, after.state.theta], -1)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    x, theta = after.state.x, after.state.theta
    shown = np.stack([x, np.cos(theta), np.sin(theta), after.state.x_dot, after.state.theta_dot], -1)
    np.testing.assert_allclose(after.observation, shown, **CLOSE)


def test_what_the_swing_up_pays():
    """Upright, still and in the middle it pays 1; each of four shortcomings by itself, worked by hand."""
    pays = lambda x, theta, theta_dot, share: float(  # noqa: E731
        CartPoleSwingUp._reward(CartPoleState(*jnp.array([x, 0.0, theta, theta_dot]), jnp.int32(0)), jnp.array(share))
    )
    assert pays(0.0, 0.0, 0.0, 0.0) == 1.0
    assert pays(0.0, np.pi, 0.0, 0.0) == pytest.approx(0.0, abs=1e-6)
    assert pays(0.0, np.pi / 2, 0.0, 0.0) == pytest.approx(0.5)
    assert pays(2.0, 0.0, 0.0, 0.0) == pytest.approx((1 + 0.1) / 2)
    assert pays(0.0, 0.0, 5.0, 0.0) == pytest.approx((1 + 0.1) / 2)
    assert pays(0.0, 0.0, 0.0, 0.5) == pytest.approx((4 + 0.75) / 5)


def test_the_swing_up_stops_at_the_end_of_its_track_and_of_its_time():
    env = CartPoleSwingUp(repeat=4, max_steps=8)
    state = CartPoleState(*jnp.array([1.75, 3.0, 0.0, 0.0]), jnp.int32(0))
    after = env.step(state, jnp.ones(1), jax.random.key(0))
    assert after.state.x == np.float32(1.8) and after.state.x_dot == 0.0
    assert after.state.time == 4 and not after.truncated
    assert 1.0 < after.reward < 4.0  # of four steps
    assert env.step(after.state, jnp.ones(1), jax.random.key(0)).truncated


@pytest.mark.parametrize(("ours", "name"), [(CartPole(), "CartPole-v1"), (Pendulum(), "Pendulum-v1")])
def test_spaces_and_limits_are_gymnasiums(ours, name):
    theirs = gymnasium.make(name, disable_env_checker=True)
    assert isinstance(ours, Env)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.max_steps == theirs.spec.max_episode_steps


@pytest.mark.parametrize(("env", "low", "high"), [(CartPole(), -0.05, 0.05), (Pendulum(), [-np.pi, -1], [np.pi, 1])])
def test_first_states_fill_gymnasiums_range(env, low, high):
    state, observation = jax.vmap(env.reset)(jax.random.split(jax.random.key(1), 2000))
    numbers = np.stack(state[:-1], -1)
    assert (numbers >= low).all() and (numbers <= high).all()
    np.testing.assert_allclose(numbers.min(0), np.broadcast_to(low, numbers.shape[1]), rtol=0.02)
    np.testing.assert_allclose(numbers.max(0), np.broadcast_to(high, numbers.shape[1]), rtol=0.02)
    assert (np.asarray(state.time) == 0).all()
    assert all(env.observation_space.contains(row) for row in np.asarray(observation)[:50])


def test_a_sweep_over_a_constant_is_one_program():
    """Constants are data: a batch of pendulums, the spaces of each still there under the trace."""
    batch = Pendulum(gravity=jnp.array([0.0, 10.0]))

    @jax.jit
    def speed(env):
        assert env.action_space == Pendulum().action_space
        state = PendulumState(jnp.float32(1.0), jnp.float32(0.0), jnp.zeros((), jnp.int32))
        return env.step(state, jnp.zeros(1), jax.random.key(0)).state.theta_dot

    axes = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, batch)
    still, falling = jax.vmap(speed, in_axes=(axes,))(batch)
    assert still == 0.0
    np.testing.assert_allclose(falling, 1.5 * 10 * np.sin(1.0) * 0.05, rtol=1e-5)
