"""The Gymnax adapter against Gymnax's own step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

gymnax = pytest.importorskip("gymnax")

from parnassus.envs.gymnax import Gymnax, make, names  # noqa: E402
from parnassus.types import BadInput, Env  # noqa: E402


@pytest.mark.reuses_keys
@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Catch-bsuite"])
def test_equal_to_gymnax_with_the_true_successor(name):
    """Where Gymnax resets by itself, it keeps what we return as `final_observation`."""
    env, (theirs, params) = make(name, max_steps_in_episode=60), gymnax.make(name)
    params = params.replace(max_steps_in_episode=60)
    assert isinstance(env, Env)

    def step(state, key):
        act_key, step_key = jax.random.split(key)
        action = theirs.action_space(params).sample(act_key)
        _, their_state, reward, terminated, truncated, info = theirs.step(step_key, state, action, params)
        ours = env.step(state, action, jax.random.split(step_key)[0])  # the key that Gymnax steps with
        return their_state, (tuple(ours)[1:], (info["final_observation"], reward, terminated, truncated))

    reset_key, key = jax.random.split(jax.random.key(3))
    state, observation = env.reset(reset_key)
    np.testing.assert_array_equal(observation, theirs.reset(reset_key, params)[0])
    _, (ours, expected) = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(key, 300)))(state)
    jax.tree.map(np.testing.assert_array_equal, ours, tuple(expected))
    assert np.asarray(ours[2]).any() or np.asarray(ours[3]).any()  # episodes ended


@pytest.mark.reuses_keys
def test_every_environment_gives_what_its_spaces_say():
    """Nothing is compiled: shapes and dtypes of observations, scalars elsewhere, states that can be scanned."""
    key = jax.random.key(0)
    for name in set(names()) - {"MNISTBandit-bsuite"}:  # that one downloads its data
        env = make(name)
        action = jnp.asarray(env.action_space.sample())
        state, observation = jax.eval_shape(env.reset, key)
        with jax.numpy_rank_promotion("allow"):  # some of Gymnax's own do
            step = jax.eval_shape(env.step, state, action, key)
        space = env.observation_space
        for seen in (observation, step.observation):
            assert seen.shape == space.shape, name
            assert isinstance(space, spaces.Discrete) or seen.dtype == space.dtype, name
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, step.state)
        flags = (step.reward, step.terminated, step.truncated)
        assert [(leaf.shape, leaf.dtype) for leaf in flags] == [((), np.float32), ((), np.bool_), ((), np.bool_)], name


def test_spaces_are_gymnasiums():
    env = make("CartPole-v1")
    assert env.action_space == spaces.Discrete(2)
    bound = np.array([4.8, np.inf, 24 * np.pi / 180, np.inf], np.float32)
    np.testing.assert_allclose(env.observation_space.high, bound, rtol=1e-6)
    assert make("Pendulum-v1").action_space == spaces.Box(-2.0, 2.0, (1,), np.float32)


def test_parameters_are_data():
    """A change of a parameter compiles nothing, a second object of the same name neither; the spaces stay concrete."""
    traces = []

    @jax.jit
    def reward(env):
        traces.append(env.action_space)
        state, _ = env.reset(jax.random.key(0))
        return env.step(state, jnp.ones(1), jax.random.key(1)).observation[2]

    env = make("Pendulum-v1")
    first, second = reward(env), reward(make("Pendulum-v1", g=0.0))
    assert len(traces) == 1 and first != second
    assert reward(Gymnax.create(env.definition.env)) == first and len(traces) == 1


def test_options_of_the_constructor():
    assert make("DeepSea-bsuite", size=5).observation_space.shape == (5, 5)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("CartPole", {}, "unknown Gymnax environment 'CartPole'; did you mean CartPole-v1"),
        ("CartPole-v1", {"colour": "red"}, "gymnax:CartPole-v1 does not know an option.*colour"),
    ],
)
def test_bad_input(name, options, words):
    with pytest.raises(BadInput, match=words):
        make(name, **options)


def test_gymnax_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gymnax", None)
    with pytest.raises(BadInput, match=r'pip install "parnassus\[gymnax\]"'):
        make("CartPole-v1")
    assert names() == []
