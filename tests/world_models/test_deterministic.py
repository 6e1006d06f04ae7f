"""One network without noise: Pendulum's steps are close to the true ones, and nothing in it is drawn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.envs.classic import Pendulum
from parnassus.off_policy import experience
from parnassus.world_models.calibration import k_step_error
from parnassus.world_models.deterministic import Deterministic
from parnassus.world_models.ensemble import EnsembleModel, Member, Outputs
from parnassus.world_models.fitting import Fitting
from tests.world_models.streams import random_steps, replay_of, spec_of

TINY = Deterministic((64, 64), fitting=Fitting(3e-3, minibatch_size=64, steps_per_look=100, max_looks=30))


@pytest.fixture(scope="module")
def fitted() -> EnsembleModel:
    model = TINY.create(jax.random.key(0), spec_of(Pendulum()))
    return jax.jit(TINY.fit)(model, replay_of(Pendulum(), 750, 0), jax.random.key(1))[0]


def test_imagined_steps_of_pendulum_are_close_to_the_true_ones(fitted: EnsembleModel) -> None:
    trajectory = random_steps(Pendulum(), 200, 5)
    error = k_step_error(fitted.members, trajectory, 5)
    assert error[0] < 0.03 and (error < 0.15).all()  # standard deviations of the observation
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), experience(trajectory, 0.99))
    reward = fitted.predict(batch.observation, batch.action).mean[0, :, -1]
    assert np.abs(reward - batch.reward).mean() < 0.1 * batch.reward.std()


def test_nothing_is_drawn(fitted: EnsembleModel) -> None:
    assert fitted.num_members == 1
    member = jax.tree.map(lambda x: x[0], fitted.members)
    state, action = jnp.array([1.0, 0.0, 0.5]), jnp.array([0.3])
    one, other = (member.step(state, action, jax.random.key(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(one.state, other.state)
    np.testing.assert_array_equal(one.state, member.predict(state, action).mean[:3])
    ends = dataclasses.replace(member, terminates=jnp.bool_(True))
    probability = [ends.termination_probability(Outputs(jnp.zeros(4), None, jnp.float32(x))) for x in (-0.1, 0.1)]
    assert probability == [0.0, 1.0]


def test_the_score_is_the_mean_squared_error_in_scaled_units(fitted: EnsembleModel) -> None:
    silent = dataclasses.replace(TINY, learn_termination=False)
    member: Member = jax.tree.map(lambda x: x[0], silent.create(jax.random.key(0), spec_of(Pendulum())).members)
    member = dataclasses.replace(member, targets=jax.tree.map(lambda x: x[0], fitted.members).targets)
    trajectory = random_steps(Pendulum(), 10, 5)
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), experience(trajectory, 0.99))
    mean = jax.vmap(member.predict)(batch.observation, batch.action).mean
    truth = np.concatenate([batch.next_observation, batch.reward[:, None]], axis=-1)
    wanted = (((truth - mean) / member.targets.std[None]) ** 2).mean()
    assert member.score(batch) == pytest.approx(float(wanted), rel=1e-4)
