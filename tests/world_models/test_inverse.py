"""Inverse models: which action it was, with under 5% error; and which state came before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.envs.classic import CartPole, Pendulum
from parnassus.off_policy import experience
from parnassus.types import BadInput, Env, Spec
from parnassus.world_models.deterministic import Deterministic
from parnassus.world_models.fitting import Fitting
from parnassus.world_models.inverse import InverseAction, Predecessor
from tests.world_models.streams import random_steps, replay_of, spec_of

FITTING = Fitting(3e-3, minibatch_size=64, steps_per_look=100, max_looks=20, tolerance=1e-4)


@pytest.mark.parametrize("env", [Pendulum(), CartPole()], ids=["pendulum", "cartpole"])
def test_actions_are_recovered(env: Env) -> None:
    inverse = InverseAction((32, 32), fitting=FITTING)
    model = inverse.create(jax.random.key(0), spec_of(env))
    model, metrics = jax.jit(inverse.fit)(model, replay_of(env, 500, 0), jax.random.key(1))
    fresh = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), experience(random_steps(env, 200, 5), 0.99))
    action = model(fresh.observation, fresh.next_observation)
    assert action.shape == fresh.action.shape
    if isinstance(env, Pendulum):
        assert np.abs(action - fresh.action).mean() / 2.0 < 0.05  # of the range [-1, 1]
    else:
        assert (action != fresh.action).mean() < 0.05
    assert np.isfinite(metrics["model/loss"])


def test_what_came_before_is_recovered() -> None:
    predecessor = Predecessor(Deterministic((64,), learn_termination=False, fitting=FITTING))
    model = predecessor.create(jax.random.key(0), spec_of(Pendulum()))
    model, _ = jax.jit(predecessor.fit)(model, replay_of(Pendulum(), 500, 0), jax.random.key(1))
    fresh = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), experience(random_steps(Pendulum(), 200, 5), 0.99))
    says = model.predict(fresh.next_observation, fresh.action).mean[0]
    truth = np.concatenate([fresh.observation, fresh.reward[:, None]], axis=-1)
    error = np.sqrt(((says - truth) ** 2).mean(0)) / truth.std(0)
    assert (error[:3] < 0.05).all() and error[3] < 0.25
    unmoved = np.sqrt(((fresh.next_observation - fresh.observation) ** 2).mean(0)) / truth.std(0)[:3]
    assert (error[:3] < 0.3 * unmoved).all()  # it says more than that nothing happened


def test_other_spaces_are_refused() -> None:
    spec = Spec(spaces.Discrete(3), spaces.Discrete(2), 1)
    for inverse in (InverseAction(), Predecessor()):
        with pytest.raises(BadInput, match="a world model learns vectors"):
            inverse.create(jax.random.key(0), spec)


def test_actions_keep_their_shape() -> None:
    spec = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2, 2), np.float32), 1)
    model = InverseAction((4,)).create(jax.random.key(0), spec)
    assert model(jnp.zeros((5, 3)), jnp.zeros((5, 3))).shape == (5, 2, 2)
