"""Calibration, k-step errors and exploitation against cases that can be computed by hand."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from parnassus.types import Transition
from parnassus.world_models import calibration
from parnassus.world_models.ensemble import Ensemble, Member, Outputs
from tests.world_models.streams import SPEC


def test_a_mixtures_distribution_function_is_the_mean_of_its_parts() -> None:
    mean, std = np.array([0.0, 2.0]), np.array([1.0, 0.5])
    outputs = Outputs(jnp.array(mean)[:, None, None], jnp.array(std)[:, None, None] ** 2, None)
    transform = calibration.probability_transform(outputs, jnp.array([[1.3]]))
    assert transform[0, 0] == pytest.approx(scipy.stats.norm.cdf(1.3, mean, std).mean(), abs=1e-6)


def test_a_model_without_noise_has_no_intervals() -> None:
    with pytest.raises(ValueError, match="a deterministic model has no intervals"):
        calibration.probability_transform(Outputs(jnp.zeros((1, 1, 1)), None, None), jnp.zeros((1, 1)))


def test_coverage_counts_the_central_intervals() -> None:
    transform = jnp.array([[0.5, 0.01], [0.45, 0.99], [0.8, 0.3], [0.24, 0.7]])
    covered = calibration.coverage(transform, np.array([0.2, 0.5, 0.7], np.float32))
    np.testing.assert_allclose(covered, [[0.5, 0.0], [0.5, 0.5], [1.0, 0.5]])
    wanted = np.mean([0.3, 0.2, 0.0, 0.0, 0.3, 0.2])
    error = calibration.expected_calibration_error(transform, np.array([0.2, 0.5, 0.7], np.float32))
    assert error == pytest.approx(wanted, abs=1e-6)


def test_a_uniform_transform_is_calibrated_and_recalibration_makes_one() -> None:
    u = jax.random.uniform(jax.random.key(0), (5_000, 2))
    assert calibration.expected_calibration_error(u) < 0.02
    narrow = 0.5 + 0.5 * jnp.sign(u - 0.5) * (2 * jnp.abs(u - 0.5)) ** 2  # of a model that is too unsure
    assert calibration.expected_calibration_error(narrow) > 0.1
    levels = calibration.raw_levels(narrow[:2_500])
    np.testing.assert_allclose(levels[:, 0], np.linspace(0.1, 0.9, 9) ** 2, atol=0.03)
    covered = calibration.coverage(narrow[2_500:], levels)
    np.testing.assert_allclose(covered, np.broadcast_to(calibration.LEVELS[:, None], (9, 2)), atol=0.05)


def drift(by: Any) -> Member:
    """Members whose observations grow by so much a step, each number alike, and that pay 1 a step."""
    by = jnp.asarray(by, jnp.float32)
    members = Ensemble(len(by), (2,), learn_termination=False).create(jax.random.key(0), SPEC).members
    mean = jnp.stack([by, by, jnp.ones(len(by))], axis=-1)
    targets = dataclasses.replace(members.targets, mean=mean, std=jnp.zeros_like(mean))
    return dataclasses.replace(members, targets=targets)


def walk(done: Any, num_steps: int = 6) -> Transition:
    """The true world: in both environments the first number grows by 1 a step, the second by 2."""
    o = jnp.stack([jnp.arange(num_steps), 2 * jnp.arange(num_steps)], axis=-1).astype(jnp.float32)
    o = jnp.broadcast_to(o[:, None], (num_steps, 2, 2))
    terminated = jnp.zeros((num_steps, 2), bool).at[done].set(True) if done else jnp.zeros((num_steps, 2), bool)
    step = jnp.array([[[1.0, 2.0]]])
    never = jnp.zeros_like(terminated)
    return Transition(o, jnp.zeros((num_steps, 2, 1)), jnp.full((num_steps, 2), 0.5), o + step, terminated, never, {})


def test_k_step_errors_are_those_of_the_mean_of_the_members() -> None:
    """Members that grow by 1 and by 2 expect 1.5 k together; the truth is k and 2 k."""
    trajectory = walk(None)
    errors = calibration.k_step_error(drift([1.0, 2.0]), trajectory, 3)
    std = np.asarray(trajectory.next_observation).std((0, 1))
    wanted = [np.sqrt((((0.5 * k) / std) ** 2).mean()) for k in (1, 2, 3)]
    np.testing.assert_allclose(errors, wanted, rtol=1e-5)


def test_no_error_is_counted_beyond_an_episodes_end() -> None:
    """A jump to elsewhere, after an end, that no model could foresee."""
    trajectory = walk((2, slice(None)))
    moved = lambda x: jnp.where(jnp.arange(6)[:, None, None] > 2, x + 100.0, x)  # noqa: E731
    jump = trajectory._replace(
        observation=moved(trajectory.observation), next_observation=moved(trajectory.next_observation)
    )
    errors = calibration.k_step_error(drift([1.0]), jump, 3)
    std = np.asarray(jump.next_observation).std((0, 1))
    np.testing.assert_allclose(errors, [np.sqrt(0.5) * k / std[1] for k in (1, 2, 3)], rtol=1e-4)


def test_what_a_model_promises_for_actions_that_were_taken() -> None:
    promised = calibration.promised_return(drift([0.0, 0.0]), walk(None), 3, 0.5)
    np.testing.assert_allclose(promised[:4], 1.75)
    assert np.isnan(promised[4:]).all()


def test_exploitation_is_what_was_promised_and_did_not_come_in() -> None:
    trajectory = walk((3, 0))  # rewards of 0.5; the first environment's episode ends with its fourth step
    promised = jnp.full((6, 2), 2.0)
    # Three steps pay 1.5. First environment: from t = 0, 1 three, from 2 two, from 3 one; then too few are seen.
    # Second: from t = 0 ... 3 three.
    wanted = np.mean([0.5, 0.5, 1.0, 1.5] + [0.5] * 4)
    assert calibration.exploitation(promised, trajectory, 3) == pytest.approx(wanted)
    some = promised.at[:3].set(jnp.nan)
    assert calibration.exploitation(some, trajectory, 3) == pytest.approx(np.mean([1.5, 0.5]))
    discounted = calibration.exploitation(promised, walk(None), 2, 0.5)
    assert discounted == pytest.approx(2.0 - 0.75)
    assert np.isnan(calibration.exploitation(jnp.full((6, 2), jnp.nan), trajectory, 3))
    assert np.isnan(calibration.exploitation(promised, walk(None), 7))
