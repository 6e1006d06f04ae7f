"""The natural gradient step: inside the trust region, as long as it may be, and none where there is none to take."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from parnassus import training
from parnassus.algorithms.acktr import ACKTR
from parnassus.collect import ScanCollector
from parnassus.kfac import KFAC
from tests.probe_envs import Probe

TINY = ACKTR(num_steps=16, hidden_sizes=(8,), kfac=KFAC(damping=1e-3), learning_rate=100.0, curvature_stride=1)


def one_iteration(algorithm: ACKTR, continuous: bool = False) -> tuple[Any, Any, dict]:
    """The learner before and after an iteration in four environments, and its metrics."""
    collector = ScanCollector(Probe("conditional", continuous=continuous), 4)
    state = training.init(algorithm, collector, jax.random.key(0), 64)
    before = jax.tree.map(jax.numpy.copy, state.learner)
    (chunk,) = training.train(algorithm, collector, state, 64)
    return before, chunk.state.learner, chunk.metrics


@pytest.mark.parametrize("continuous", [False, True])
def test_the_predicted_kl_is_the_limit_and_the_real_one_close(continuous: bool) -> None:
    _, _, metrics = one_iteration(dataclasses.replace(TINY, max_kl=1e-3), continuous)
    assert metrics["policy/kl_predicted"] == pytest.approx(1e-3, rel=1e-4)
    assert 1e-4 < metrics["policy/kl"] < 2e-3  # the Kronecker product is an approximation


def test_short_steps_are_the_learning_rate() -> None:
    _, _, metrics = one_iteration(dataclasses.replace(TINY, learning_rate=1e-4))
    assert metrics["policy/step_size"] == metrics["value/step_size"] == pytest.approx(1e-4)
    assert metrics["policy/kl_predicted"] < TINY.max_kl


def test_a_learning_rate_of_nothing_changes_nothing() -> None:
    before, after, _ = one_iteration(dataclasses.replace(TINY, learning_rate=0.0))
    for a, b in zip(*map(jax.tree.leaves, ((after.policy, after.value), (before.policy, before.value))), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_fixed_standard_deviation_stays() -> None:
    for learned in (False, True):
        algorithm = dataclasses.replace(TINY, learned_std=learned, initial_log_std=-0.5)
        before, after, _ = one_iteration(algorithm, continuous=True)
        assert (before.policy.params["log_std"] == after.policy.params["log_std"]).all() == (not learned)
