"""A JAX environment as a Gymnasium environment, and plain objects as pytrees."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from parnassus.envs.classic import CartPole, Pendulum
from parnassus.envs.mdp import FiniteMDP
from parnassus.envs.wrap import AsGymnasium, Opaque, as_gymnasium, as_pytree
from parnassus.types import Step


class Counter:
    """A plain object, with state that is a dict, and an observation that is one."""

    observation_space = gymnasium.spaces.Dict({"count": gymnasium.spaces.Box(0, 9, (1,), np.float32)})
    action_space = gymnasium.spaces.Discrete(2)
    __hash__ = None  # a plain dataclass has none either

    def reset(self, key):
        return {"n": jnp.float32(0)}, {"count": jnp.zeros(1)}

    def step(self, state, action, key):
        n = state["n"] + action
        return Step({"n": n}, {"count": n[None]}, n, n >= 3, jnp.zeros((), bool))


@pytest.mark.parametrize("env", [CartPole(), Pendulum(), FiniteMDP.from_gymnasium("FrozenLake-v1")])
def test_keys_follow_the_docstring(env):
    """A whole run of episodes from the documented key derivation, with pure functions alone."""
    wrapped = as_gymnasium(env)
    wrapped.action_space.seed(0)
    key, reset_key = jax.random.split(jax.random.key(5))
    state, expected = env.reset(reset_key)
    observation, _ = wrapped.reset(seed=5)
    ends = 0
    for _ in range(120):
        np.testing.assert_allclose(observation, expected, rtol=1e-5, atol=1e-5)
        action = wrapped.action_space.sample()
        observation, reward, terminated, truncated, _ = wrapped.step(action)
        key, step_key = jax.random.split(key)
        step = env.step(state, jnp.asarray(action), step_key)
        state, expected = step.state, step.observation
        np.testing.assert_allclose(reward, step.reward, rtol=1e-5, atol=1e-5)
        assert (terminated, truncated) == (bool(step.terminated), bool(step.truncated))
        if terminated or truncated:
            ends += 1
            observation, _ = wrapped.reset()
            key, reset_key = jax.random.split(key)
            state, expected = env.reset(reset_key)
    assert ends > 0 or isinstance(env, Pendulum)


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")  # Pendulum's torque is in [-2, 2]
@pytest.mark.filterwarnings("ignore:.*infinity. This is probably too")  # CartPole's speeds have no bounds
@pytest.mark.filterwarnings("ignore:.*not having a spec")
@pytest.mark.parametrize("env", [CartPole(), Pendulum(), Counter()])
def test_gymnasiums_own_checker_accepts_it(env):
    check_env(AsGymnasium(env), skip_render_check=True)


def test_observations_may_be_kept_and_changed():
    env = AsGymnasium(CartPole())
    first, _ = env.reset(seed=0)
    kept = first.copy()
    second, *_ = env.step(0)
    np.testing.assert_array_equal(first, kept)
    second[:] = 0.0  # writable, and not the environment's state
    third, *_ = env.step(0)
    assert third.any()


def test_unseeded_resets_differ():
    first, second = (AsGymnasium(CartPole()).reset()[0] for _ in range(2))
    assert (first != second).all()


def test_step_before_reset_is_refused():
    with pytest.raises(gymnasium.error.ResetNeeded):
        AsGymnasium(CartPole()).step(0)


def test_plain_objects_become_arguments_of_compiled_functions():
    plain = Counter()
    env = as_pytree(plain)
    assert isinstance(env, Opaque) and env == as_pytree(plain) and env != as_pytree(Counter())
    traces = []

    @jax.jit
    def run(env):
        traces.append(1)
        state, _ = env.reset(jax.random.key(0))
        return env.step(state, 1, jax.random.key(0)).observation["count"]

    assert run(env) == run(as_pytree(plain)) == 1.0
    assert len(traces) == 1
    assert env.action_space == plain.action_space and env.observation_space == plain.observation_space


def test_pytrees_stay_what_they_are():
    env = CartPole()
    assert as_pytree(env) is env
