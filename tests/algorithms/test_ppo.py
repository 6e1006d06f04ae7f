"""What an iteration does with its options; the objectives themselves are in test_objectives.py."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import training
from parnassus.algorithms.ppo import PPO
from parnassus.collect import ScanCollector
from parnassus.objectives import AdaptiveKL, FixedKL
from parnassus.schedules import Linear, Progress
from tests import soft_mdp
from tests.probe_envs import Probe

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


KL_STEP = dataclasses.replace(TINY, learning_rate=1e-2, num_epochs=8, minibatch_size=16)


@pytest.mark.parametrize("continuous", [False, True])
def test_the_reported_kl_is_that_of_the_distributions(continuous: bool) -> None:
    """KL(old || new), on the observation that the probe always shows."""
    probe = Probe("action", continuous=continuous)
    before, after, metrics = one_iteration(KL_STEP, probe)
    shown = probe.observe(jnp.zeros(1, jnp.int32))
    assert metrics["policy/kl"] == pytest.approx(float(before.policy(shown).kl(after.policy(shown))[0]), rel=1e-3)


@pytest.mark.parametrize("continuous", [False, True])
def test_a_dearer_kl_is_a_smaller_step(continuous: bool) -> None:
    metrics = {}
    for beta in (0.0, 1.0, 100.0):
        algorithm = dataclasses.replace(KL_STEP, objective=FixedKL(beta))
        _, _, metrics[beta] = one_iteration(algorithm, Probe("action", continuous=continuous))
    kl = {beta: float(seen["policy/kl"]) for beta, seen in metrics.items()}
    assert kl[0.0] > 2 * kl[1.0] > 20 * kl[100.0], metrics


def test_the_adaptive_penalty_is_in_the_learner_and_follows_the_kl() -> None:
    for target, factor in ((1e-6, 2.0), (100.0, 0.5)):
        algorithm = dataclasses.replace(KL_STEP, objective=AdaptiveKL(target, 0.25))
        before, after, metrics = one_iteration(algorithm, Probe("action"))
        assert before.objective == 0.25 and metrics["policy/kl_coefficient"] == 0.25
        assert after.objective == pytest.approx(0.25 * factor)


def test_without_a_target_an_iteration_goes_on() -> None:
    _, _, free = one_iteration(KL_STEP, Probe("action"))
    _, _, far = one_iteration(dataclasses.replace(KL_STEP, target_kl=1e3), Probe("action"))
    assert "policy/stopped" not in free and far["policy/stopped"] == 0.0
    assert far["policy/kl"] == pytest.approx(free["policy/kl"], rel=1e-5)


def test_an_iteration_stops_where_the_kl_passes_one_and_a_half_targets() -> None:
    """The parameters are those of the last step that was taken: of fewer epochs, when no step splits an epoch."""
    whole = dataclasses.replace(KL_STEP, minibatch_size=64, normalize_advantages=False)  # order does not matter then
    after, kl = {}, {}
    for epochs in (3, 4):
        _, after[epochs], metrics = one_iteration(dataclasses.replace(whole, num_epochs=epochs), Probe("action"))
        kl[epochs] = metrics["policy/kl"]
    limit = (kl[3] + kl[4]) / 2  # after four steps the policy is too far away, and the fifth is not taken
    assert kl[3] < kl[4]
    _, stopped, metrics = one_iteration(dataclasses.replace(whole, target_kl=limit / 1.5), Probe("action"))
    assert metrics["policy/stopped"] == 1.0 and metrics["policy/kl"] == pytest.approx(kl[4], rel=1e-3)
    for a, b in zip(jax.tree.leaves(stopped.policy), jax.tree.leaves(after[4].policy), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for a, b in zip(jax.tree.leaves(stopped.optimizer), jax.tree.leaves(after[4].optimizer), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_clipped_value_is_not_pulled_further_than_its_range() -> None:
    """The larger of both errors: no gradient where the value has moved by more than the range towards the target."""
    old, target = jnp.zeros(5), jnp.array([1.0, 1.0, 1.0, -1.0, 1.0])
    value = jnp.array([0.1, 0.3, -0.3, -0.3, 1.3])
    clipped = dataclasses.replace(TINY, value_clip_range=0.2)
    loss = lambda algorithm: lambda v: algorithm.value_loss(v, old, target, Progress.start())  # noqa: E731
    np.testing.assert_allclose(loss(TINY)(value), ((value - target) ** 2).mean(), rtol=1e-6)
    errors = [0.9**2, 0.8**2, 1.3**2, 0.8**2, 0.8**2]  # of 0.1, 0.2 and not 0.3, -0.3, -0.2, and 0.2 and not 1.3
    np.testing.assert_allclose(loss(clipped)(value), np.mean(errors), rtol=1e-5)
    gradient = 5 * jax.grad(loss(clipped))(value)
    np.testing.assert_allclose(gradient, [2 * (0.1 - 1.0), 0.0, 2 * (-0.3 - 1.0), 0.0, 0.0], atol=1e-5)


def test_value_clipping_holds_the_value_function() -> None:
    long = dataclasses.replace(KL_STEP, learning_rate=3e-3, num_epochs=64)
    probe = Probe("constant")  # V should be 1
    shown = probe.observe(jnp.zeros(1, jnp.int32))
    moved = {}
    for clip_range in (None, 0.1):
        before, after, _ = one_iteration(dataclasses.replace(long, value_clip_range=clip_range), probe)
        moved[clip_range] = abs(float(after.value(shown)[0] - before.value(shown)[0]))
    assert moved[None] > 0.8 > 0.4 > moved[0.1] > 0.1  # Adam's momentum carries it past its range


@pytest.mark.parametrize(("temperature", "bonus"), [(soft_mdp.ALPHA, 0.0), (0.0, soft_mdp.ALPHA)])
def test_entropy_in_the_return_is_not_an_entropy_bonus(temperature: float, bonus: float) -> None:
    """On a table of three states: softmax(Q_soft / alpha) with the one, softmax(Q / alpha) with the other."""
    algorithm = PPO(
        learning_rate=Linear(3e-2, 0.0),
        num_steps=8,
        num_epochs=2,
        minibatch_size=512,
        discount=soft_mdp.GAMMA,
        gae_lambda=0.9,
        normalize_advantages=False,  # else the bonus would be measured against advantages of another size
        temperature=temperature,
        entropy_coefficient=bonus,
        hidden_sizes=(),
    )
    learner = soft_mdp.learn(algorithm, 200_000)
    soft_mdp.check(learner.policy, learner.value, learner.encoder, temperature)
