"""The clipped objective against its definition; what an iteration does with its options."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import training
from parnassus.algorithms.ppo import PPO, Clip
from parnassus.collect import ScanCollector
from parnassus.schedules import Linear, Progress
from tests.probe_envs import Probe


def definition(log_ratio: Any, advantage: Any, epsilon: float) -> Any:
    """Equation 7, to the letter."""
    ratio = jnp.exp(log_ratio)
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - epsilon, 1 + epsilon) * advantage).mean()


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.3])
def test_the_objective_and_its_gradient_are_those_of_equation_7(epsilon: float) -> None:
    log_ratio = jax.random.normal(jax.random.key(0), (1000,)) * 0.3
    advantage = jax.random.normal(jax.random.key(1), (1000,)).at[:10].set(0.0)
    ours = lambda x: Clip(epsilon)(x, advantage, Progress.start())[0]  # noqa: E731
    theirs = lambda x: definition(x, advantage, epsilon)  # noqa: E731
    np.testing.assert_allclose(ours(log_ratio), theirs(log_ratio), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(ours)(log_ratio), jax.grad(theirs)(log_ratio), atol=1e-7)


def test_the_clip_fraction_counts_ratios_outside() -> None:
    ratio = jnp.array([0.7, 0.85, 1.0, 1.15, 1.3])
    _, metrics = Clip(0.2)(jnp.log(ratio), jnp.ones(5), Progress.start())
    assert metrics["policy/clip_fraction"] == pytest.approx(2 / 5)


def test_the_clip_range_may_be_a_schedule() -> None:
    progress = dataclasses.replace(Progress.start(), steps=jnp.int32(1), planned=jnp.int32(2))
    objective, _ = Clip(Linear(0.2, 0.0))(jnp.log(jnp.array([2.0])), jnp.ones(1), progress)
    assert objective == pytest.approx(1.1)


TINY = PPO(num_steps=16, num_epochs=1, minibatch_size=64, hidden_sizes=(8,))


def one_iteration(algorithm: PPO, probe: Probe) -> tuple[Any, Any, dict]:
    """The learner before and after an iteration in four environments, and its metrics."""
    collector = ScanCollector(probe, 4)
    state = training.init(algorithm, collector, jax.random.key(0), 64)
    before = jax.tree.map(jnp.copy, state.learner)
    (chunk,) = training.train(algorithm, collector, state, 64)
    return before, chunk.state.learner, chunk.metrics


def test_the_first_step_is_adams_with_a_clipped_gradient() -> None:
    """Adam's first step has the size of the learning rate wherever the gradient is not tiny."""
    before, after, _ = one_iteration(dataclasses.replace(TINY, learning_rate=1e-2), Probe("action"))
    steps = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (after.value, before.value)), strict=True)]
    assert max(steps) == pytest.approx(1e-2, rel=0.05)


def test_a_schedule_that_ends_at_nothing_stops_learning() -> None:
    before, after, _ = one_iteration(dataclasses.replace(TINY, learning_rate=0.0), Probe("action"))
    for a, b in zip(*map(jax.tree.leaves, (after.policy, before.policy)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_observations_are_normalised_by_what_came_before() -> None:
    algorithm = dataclasses.replace(TINY, normalize_observations=True, normalize_rewards=True)
    before, after, _ = one_iteration(algorithm, Probe("observation"))
    assert before.encoder.statistics[0].count == 0
    assert after.encoder.statistics[0].count == 64  # once for each transition
    assert after.rewards.statistics.count == 64
    assert after.rewards.statistics.variance == pytest.approx(1.0, abs=0.1)  # rewards -1 and +1, one-step episodes


def test_the_metrics_compare_the_new_policy_with_the_old() -> None:
    _, _, still = one_iteration(dataclasses.replace(TINY, learning_rate=0.0), Probe("action"))
    _, _, moved = one_iteration(dataclasses.replace(TINY, learning_rate=1e-2, num_epochs=4), Probe("action"))
    assert still["policy/kl"] == pytest.approx(0.0, abs=1e-6)
    assert still["policy/entropy"] == pytest.approx(np.log(2), abs=1e-3)
    assert moved["policy/kl"] > 1e-4


def test_the_first_log_standard_deviation() -> None:
    collector = ScanCollector(Probe("action", continuous=True), 4)
    for value in (0.0, -1.5):
        algorithm = dataclasses.replace(TINY, initial_log_std=value)
        state = training.init(algorithm, collector, jax.random.key(0), 64)
        assert state.learner.policy.params["log_std"].tolist() == [value]
