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
from parnassus.schedules import Linear
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


def test_the_entropy_bonus_is_climbed() -> None:
    """A bonus that outweighs all advantages widens the policy, by as much as the trust region allows."""
    entropy = {}
    for coefficient in (0.0, 100.0):
        algorithm = dataclasses.replace(TINY, max_kl=1e-2, entropy_coefficient=coefficient, initial_log_std=-1.0)
        learners = one_iteration(algorithm, continuous=True)[:2]
        shown = Probe("conditional").observe(jax.numpy.arange(2))
        entropy[coefficient] = [float(learner.policy(shown).entropy().mean()) for learner in learners]
    assert entropy[0.0][0] == entropy[100.0][0]
    # KL(old || new) of a Gaussian that grows by a factor e^d is d - 1/2 + e^(-2 d) / 2 = d^2 for small d: d = 0.1.
    assert entropy[100.0][1] - entropy[100.0][0] == pytest.approx(0.1, rel=0.2)
    assert abs(entropy[0.0][1] - entropy[0.0][0]) < 0.05


def test_schedules_reach_both_trust_regions_and_the_longest_step() -> None:
    """Halfway through, all of them are half of what they were."""
    plain = dataclasses.replace(TINY, max_kl=Linear(2e-3, 0.0), value_max_kl=2e-3)
    short = dataclasses.replace(TINY, learning_rate=Linear(1e-4, 0.0))
    collector = ScanCollector(Probe("conditional"), 4)
    for algorithm, name, first in (
        (plain, "policy/kl_predicted", 2e-3),
        (short, "policy/step_size", 1e-4),
        (short, "value/step_size", 1e-4),
    ):
        state = training.init(algorithm, collector, jax.random.key(0), 128)
        seen = [float(chunk.metrics[name]) for chunk in training.train(algorithm, collector, state, 128, 1)]
        np.testing.assert_allclose(seen, [first, first / 2], rtol=1e-3)
