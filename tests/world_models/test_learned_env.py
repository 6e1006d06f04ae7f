"""Imagination is an ordinary rollout: starts are the replay's, steps are the members', episodes end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import rollout
from parnassus.envs.classic import CartPole
from parnassus.planning.cem import CEM
from parnassus.types import Env
from parnassus.world_models.ensemble import Ensemble
from parnassus.world_models.fitting import Fitting
from parnassus.world_models.learned_env import LearnedEnv
from tests.world_models.streams import SPEC, linear_replay, random_steps, replay_of, spec_of

TINY = Ensemble(3, (32,), fitting=Fitting(3e-3, minibatch_size=64, steps_per_look=100, max_looks=20))


@pytest.fixture(scope="module")
def cartpole() -> LearnedEnv:
    replay = replay_of(CartPole(), 500, 0)
    model = TINY.create(jax.random.key(0), spec_of(CartPole()))
    return LearnedEnv(jax.jit(TINY.fit)(model, replay, jax.random.key(1))[0], replay)


def test_it_is_an_environment(cartpole: LearnedEnv) -> None:
    assert isinstance(cartpole, Env)
    assert cartpole.observation_space.shape == (4,) and cartpole.action_space.n == 2
    trajectory = random_steps(cartpole, 40, 2, num_envs=8)
    assert trajectory.observation.shape == (40, 8, 4) and np.isfinite(trajectory.next_observation).all()
    np.testing.assert_allclose(trajectory.reward, 1.0, atol=1e-6)
    assert trajectory.terminated.any() and not trajectory.truncated.any()
    ended = np.argwhere(np.asarray(trajectory.terminated[:-1]))
    known = np.asarray(cartpole.starts.storage.observation)
    for t, n in ended:  # another start of the replay's follows
        assert (known == np.asarray(trajectory.observation)[t + 1, n]).all(1).any()


def test_imagined_steps_are_close_to_the_true_ones(cartpole: LearnedEnv) -> None:
    true = random_steps(CartPole(), 100, 3)
    before = np.asarray(true.observation).reshape(-1, 4)
    after = np.asarray(true.next_observation).reshape(-1, 4)
    keys = jax.random.split(jax.random.key(0), len(before))
    step = jax.vmap(cartpole.step)(jnp.asarray(before), true.action.reshape(-1), keys)
    assert np.sqrt(((step.observation - after) ** 2).mean(0) / after.var(0)).max() < 0.15
    assert (step.terminated == true.terminated.reshape(-1)).mean() > 0.9


def test_every_member_is_followed_and_weights_are_not_gathered() -> None:
    """Members that say different constants: all of these come, about evenly."""
    model = dataclasses.replace(TINY, learn_termination=False).create(jax.random.key(0), SPEC)
    targets = dataclasses.replace(
        model.members.targets, mean=jnp.broadcast_to(jnp.arange(3.0)[:, None], (3, 3)), std=jnp.zeros((3, 3))
    )
    members = dataclasses.replace(model.members, targets=targets)
    env = LearnedEnv(dataclasses.replace(model, members=members), linear_replay(20))
    act = lambda memory, observation, key: (jnp.zeros((300, 1)), memory, {})  # noqa: E731
    actor = rollout.reset(env, jax.random.key(1), (), 300)
    trajectory = rollout.rollout(env, act, actor, (), jax.random.key(2), 2)[1]
    shares = np.bincount(np.asarray(trajectory.reward, int).ravel(), minlength=3) / 600
    np.testing.assert_allclose(shares, 1 / 3, atol=0.08)
    step = lambda state, action, keys: jax.vmap(env.step)(state, action, keys)  # noqa: E731
    jaxpr = jax.make_jaxpr(step)(jnp.zeros((300, 2)), jnp.zeros((300, 1)), jax.random.split(jax.random.key(0), 300))
    gathered = [equation.invars[0].aval.shape for equation in jaxpr.eqns if equation.primitive.name == "gather"]
    assert all(32 not in shape for shape in gathered)


def test_a_planner_plans_in_the_members() -> None:
    model = TINY.create(jax.random.key(0), SPEC)
    env = LearnedEnv(model, linear_replay(20))
    planner = CEM(horizon=3, candidates=16, iterations=2, elites=4)
    memory = planner.initial_memory(env.action_space, 1)[0]
    action, memory, metrics = planner(env.members, jnp.zeros(2), memory, jax.random.key(1))
    assert action.shape == (1,) and memory.shape == (3, 1) and np.isfinite(metrics["plan/value"])
