"""What `make` makes of names, functions and objects."""

import functools
import subprocess
import sys

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import envs
from parnassus.envs.classic import CartPole
from parnassus.envs.gymnasium import GymnasiumEnvs
from parnassus.envs.mdp import FiniteMDP
from parnassus.envs.wrap import AsGymnasium, Opaque
from parnassus.types import BadInput, Env, Step


class Plain:
    """The least that a user would write."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, key):
        return jnp.zeros(()), jnp.zeros(1)

    def step(self, state, action, key):
        never = jnp.zeros((), bool)
        return Step(state, jnp.zeros(1), jnp.ones(()), never, never)


@pytest.mark.parametrize("name", envs.names()["jax"])
def test_every_built_in_name_makes_a_pure_environment(name):
    env = envs.make(name)
    assert isinstance(env, Env)
    reset_key, step_key = jax.random.split(jax.random.key(0))
    state, _ = env.reset(reset_key)
    after = jax.jit(env.step)(state, jnp.asarray(env.action_space.sample()), step_key)
    assert after.observation.shape == env.observation_space.shape


def test_prefixes():
    assert envs.make("jax:CartPole-v1", 7, max_steps=9) == CartPole(max_steps=9)
    assert isinstance(envs.make("jax:Taxi-v4"), FiniteMDP)
    host = envs.make("CartPole-v1", 3)
    assert isinstance(host, GymnasiumEnvs) and host.num_envs == 3
    assert envs.make("gymnasium:CartPole-v1", 2).num_envs == 2


def test_gymnax_and_envpool_prefixes():
    pytest.importorskip("gymnax")
    pytest.importorskip("envpool")
    assert isinstance(envs.make("gymnax:CartPole-v1"), Env)
    pool = envs.make("envpool:CartPole-v1", 3, num_threads=1)
    assert pool.reset([0, 1, 2]).shape == (3, 4)


def test_functions_of_either_kind():
    assert envs.make(CartPole, max_steps=3) == CartPole(max_steps=3)
    assert envs.make(lambda: CartPole()) == CartPole()
    assert isinstance(envs.make(Plain), Opaque)
    host = envs.make(functools.partial(AsGymnasium, CartPole()), 2)
    assert host.reset([0, 1]).shape == (2, 4)
    assert envs.make(gym.make, 2, id="CartPole-v1").reset([0, 1]).shape == (2, 4)


def test_objects():
    env = CartPole()
    assert envs.make(env) is env
    assert jax.jit(lambda env: env.reset(jax.random.key(0))[1])(envs.make(Plain())).shape == (1,)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("env", "options", "words"),
    [
        ("CartPol-v1", {}, "unknown Gymnasium environment 'CartPol-v1'; did you mean CartPole-v"),
        ("jax:CartPol", {}, "unknown environment 'jax:CartPol'; did you mean CartPole-v1"),
        ("jax:CartPole-v1", {"speed": 2}, "jax:CartPole-v1 does not know an option.*speed"),
        ("gymax:CartPole-v1", {}, "unknown environment 'gymax:CartPole-v1': before the colon"),
        ("not a module:X-v0", {}, "before the colon"),
        ("", {}, "Gymnasium cannot make ''"),
        ("jax:CartPole-v1", {"asynchronous": True}, "asynchronous=True is for Gymnasium"),
        (CartPole(), {"max_steps": 3}, "takes no options"),
        (lambda: 3, {}, "should make a gymnasium.Env or a JAX environment, but made a int"),
        (3, {}, "an environment is a name.*not 3"),
        (AsGymnasium(CartPole()), {}, "is one environment, but copies are needed"),
    ],
)
def test_anything_else_is_refused(env, options, words):
    with pytest.raises(BadInput, match=words) as error:
        envs.make(env, **options)
    assert "\n" not in str(error.value)


def test_names():
    names = envs.names()
    assert "jax:Taxi-v4" in names["jax"] and "CartPole-v1" in names["gymnasium"]
    assert not [name for name in names["gymnasium"] if name.startswith(("GymV", "HalfCheetah-v2", "phys2d/"))]


def test_adapters_are_imported_late():
    code = "import sys, parnassus.envs; print([m for m in ('gymnax', 'envpool', 'mujoco') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
