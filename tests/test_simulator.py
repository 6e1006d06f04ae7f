"""A simulator shows its environment's state, and is the environment in everything else."""

import dataclasses
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.encoding import zeros
from parnassus.envs.classic import Pendulum
from parnassus.envs.textbook import WORLDS, make
from parnassus.planning.cem import CEM
from parnassus.simulator import Simulator, informed, needed, visible, visible_space
from parnassus.types import BadInput, Env, Step, pytree


class Everything(NamedTuple):
    """A state with leaves of every kind."""

    position: jax.Array
    count: jax.Array
    is_open: jax.Array
    key: jax.Array


@pytree
class Hidden:
    """Shows a zero; what it holds is in its state alone."""

    observation_space = gymnasium.spaces.Box(0.0, 0.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, key):
        hidden, shown = jax.random.split(key)
        return Everything(jax.random.uniform(shown, (3,)), jnp.int32(7), jnp.array(True), hidden), jnp.zeros(1)

    def step(self, state, action, key):
        after = state._replace(count=state.count + action, is_open=~state.is_open)
        return Step(after, jnp.zeros(1), after.position.sum(), jnp.array(False), after.count > 8)


@pytest.mark.parametrize("env", [Pendulum(), make(next(iter(WORLDS))), Hidden()], ids=lambda env: type(env).__name__)
def test_it_goes_where_the_environment_goes(env):
    simulator = Simulator(env)
    assert isinstance(simulator, Env)
    assert simulator.action_space == env.action_space
    reset_key, step_key = jax.random.split(jax.random.key(3))
    wanted, shown = env.reset(jax.random.clone(reset_key))
    state, observation = simulator.reset(reset_key)
    action = jnp.asarray(env.action_space.sample())
    same(state, wanted)
    same(observation["observation"], shown)
    same(simulator.state(observation), wanted)
    after, true = simulator.step(state, action, jax.random.clone(step_key)), env.step(wanted, action, step_key)
    same(after._replace(observation=after.observation["observation"]), true)
    same(simulator.state(after.observation), true.state)


def test_states_of_many_environments_at_once():
    simulator = Simulator(Hidden())
    state, observation = jax.vmap(simulator.reset)(jax.random.split(jax.random.key(0), 5))
    assert observation["state"][0].shape == (5, 3)
    same(simulator.state(observation), state)


def test_its_space_describes_its_observations():
    """Shapes and dtypes, as a replay and a policy in use make their zeros from it."""
    simulator = Simulator(Hidden())
    _, observation = simulator.reset(jax.random.key(0))
    template = zeros(simulator.observation_space)
    assert jax.tree.structure(template) == jax.tree.structure(observation)
    for like, leaf in zip(jax.tree.leaves(template), jax.tree.leaves(observation), strict=True):
        assert (like.shape, like.dtype) == (leaf.shape, leaf.dtype)
    assert simulator.observation_space.contains(jax.tree.map(np.asarray, observation))


def test_constants_of_the_environment_stay_data():
    """A batch of simulators: models of another gravity, side by side."""
    batch = Simulator(Pendulum(gravity=jnp.array([0.0, 10.0])))
    axes = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, batch)
    state, observation = Simulator(Pendulum()).reset(jax.random.key(0))
    speed = lambda model: model.step(model.state(observation), jnp.zeros(1), jax.random.key(1)).state.theta_dot  # noqa: E731
    still, falling = jax.vmap(speed, in_axes=(axes,))(batch)
    np.testing.assert_allclose(still, state.theta_dot, rtol=1e-6)
    assert abs(falling - still) > 1e-3


def test_what_needs_one_says_so():
    simulator = Simulator(Pendulum())
    assert needed(simulator, "MPC") is simulator
    with pytest.raises(BadInput, match="MPC plans in the environment itself.*jax:"):
        needed(None, "MPC")


def same(left, right):
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


@dataclasses.dataclass(frozen=True)
class Part:
    simulator: Simulator | None = None
    number: int = 3


@dataclasses.dataclass(frozen=True)
class Whole:
    part: Part
    name: str = "whole"


def test_parts_are_informed_and_others_stay_what_they_are():
    simulator = Simulator(Pendulum())
    assert informed(Part(), simulator) == Part(simulator)
    assert informed(Whole(Part(number=4)), simulator) == Whole(Part(simulator, 4))
    other = CEM()
    assert informed(other, simulator) is other


def test_what_is_visible():
    simulator = Simulator(Pendulum())
    _, observation = simulator.reset(jax.random.key(0))
    assert visible(observation) is observation["observation"]
    assert visible(observation["observation"]) is observation["observation"]
    assert visible_space(simulator.observation_space) == Pendulum().observation_space
    nested = gymnasium.spaces.Dict({"observation": Pendulum().observation_space})
    assert visible_space(nested) is nested  # a user's own Dict
