"""PPO's objectives against their equations, where their gradients vanish, and how the penalty adapts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.distributions import Categorical, DiagonalGaussian
from parnassus.objectives import AdaptiveKL, Change, Clip, FixedKL, Objective, Unclipped
from parnassus.schedules import Linear, Progress

START = Progress.start()
HALFWAY = dataclasses.replace(START, steps=jnp.int32(1), planned=jnp.int32(2))
OBJECTIVES: list[Any] = [Unclipped(), Clip(0.2), FixedKL(2.0), AdaptiveKL(0.01, 3.0)]


def value(objective: Any, log_ratio: Any, advantage: Any, kl: Any = None, progress: Progress = START) -> Any:
    """The objective before the first iteration has adapted it."""
    kl = jnp.zeros_like(log_ratio) if kl is None else kl
    return objective(objective.init(), Change(log_ratio, advantage, kl), progress)[0]


def some_changes(n: int = 1000) -> tuple[Any, Any]:
    """Ratios on both sides of 1 and advantages of both signs, some of them 0."""
    log_ratio = jax.random.normal(jax.random.key(0), (n,)) * 0.3
    return log_ratio, jax.random.normal(jax.random.key(1), (n,)).at[: n // 100].set(0.0)


def min_form(log_ratio: Any, advantage: Any, epsilon: float) -> Any:
    """Equation 7, to the letter."""
    ratio = jnp.exp(log_ratio)
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - epsilon, 1 + epsilon) * advantage).mean()


def g_form(log_ratio: Any, advantage: Any, epsilon: float) -> Any:
    """min(ratio A, g(epsilon, A)), g = (1 + epsilon) A where A >= 0 and (1 - epsilon) A elsewhere (Achiam 2018)."""
    g = jnp.where(advantage >= 0, (1 + epsilon) * advantage, (1 - epsilon) * advantage)
    return jnp.minimum(jnp.exp(log_ratio) * advantage, g).mean()


@pytest.mark.parametrize("form", [min_form, g_form])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.3])
def test_the_clipped_objective_and_its_gradient_are_those_of_both_forms(form: Any, epsilon: float) -> None:
    log_ratio, advantage = some_changes()
    ours = lambda x: value(Clip(epsilon), x, advantage)  # noqa: E731
    theirs = lambda x: form(x, advantage, epsilon)  # noqa: E731
    np.testing.assert_allclose(ours(log_ratio), theirs(log_ratio), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(ours)(log_ratio), jax.grad(theirs)(log_ratio), atol=1e-7)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("ratio", [0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0])
def test_the_clipped_gradient_vanishes_where_the_ratio_has_gone_far_enough(ratio: float, advantage: float) -> None:
    """Beyond 1 + epsilon for a good action, below 1 - epsilon for a bad one, and nowhere else."""
    gradient = jax.grad(lambda x: value(Clip(0.2), x, jnp.array([advantage])))(jnp.log(jnp.array([ratio])))
    far_enough = ratio > 1.2 if advantage > 0 else ratio < 0.8
    assert gradient[0] == pytest.approx(0.0 if far_enough else ratio * advantage)  # d ratio / d log ratio = ratio


def test_the_clip_fraction_counts_ratios_outside() -> None:
    ratio = jnp.array([0.7, 0.85, 1.0, 1.15, 1.3])
    _, metrics = Clip(0.2)((), Change(jnp.log(ratio), jnp.ones(5), jnp.zeros(5)), START)
    assert metrics["policy/clip_fraction"] == pytest.approx(2 / 5)


def test_ranges_and_penalties_may_be_schedules() -> None:
    log_ratio, one = jnp.log(jnp.array([2.0])), jnp.ones(1)
    assert value(Clip(Linear(0.2, 0.0)), log_ratio, one, progress=HALFWAY) == pytest.approx(1.1)
    assert value(FixedKL(Linear(4.0, 0.0)), log_ratio, one, one, HALFWAY) == pytest.approx(2.0 - 2.0)


def test_unclipped_is_the_importance_weighted_advantage() -> None:
    ratio, advantage = jnp.array([0.5, 1.0, 3.0]), jnp.array([1.0, -2.0, 4.0])
    assert value(Unclipped(), jnp.log(ratio), advantage) == pytest.approx((0.5 - 2.0 + 12.0) / 3)


OLD = {
    "categorical": Categorical(jnp.array([[0.3, -0.2, 0.1], [1.0, 0.0, -1.0]])),
    "gaussian": DiagonalGaussian(jnp.array([[0.2, -0.1], [0.0, 0.4]]), jnp.array([[-0.5, 0.1], [0.0, 0.3]])),
}


def on_policy(objective: Any, old: Any, new: Any, advantage: Any, action: Any) -> Any:
    """The objective of a new distribution on actions of the old one."""
    return value(objective, new.log_prob(action) - old.log_prob(action), advantage, old.kl(new))


@pytest.mark.parametrize("kind", OLD)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda x: type(x).__name__)
def test_at_the_old_policy_the_gradient_is_the_policy_gradient(objective: Any, kind: str) -> None:
    old, advantage = OLD[kind], jnp.array([1.5, -0.5])
    action = old.sample(jax.random.key(0))
    ours = jax.grad(lambda new: on_policy(objective, old, new, advantage, action))(old)
    theirs = jax.grad(lambda new: (new.log_prob(action) * advantage).mean())(old)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)


@pytest.mark.parametrize("kind", OLD)
def test_the_penaltys_gradient_is_beta_times_that_of_the_kl(kind: str) -> None:
    """Away from the old policy; the KL is KL(old || new), whose gradient in logits is softmax(new) - softmax(old)."""
    old, advantage = OLD[kind], jnp.array([1.5, -0.5])
    action = old.sample(jax.random.key(0))
    new = jax.tree.map(lambda x: x + 0.3 * jnp.arange(x.size).reshape(x.shape), old)
    gradient = lambda objective: jax.grad(lambda new: on_policy(objective, old, new, advantage, action))(new)  # noqa: E731
    penalty = jax.tree.map(lambda a, b: np.asarray(a - b), gradient(Unclipped()), gradient(FixedKL(2.5)))
    if kind == "categorical":
        expected = 2.5 * (jax.nn.softmax(new.logits) - jax.nn.softmax(old.logits)) / 2  # of a mean over two states
        np.testing.assert_allclose(penalty.logits, expected, atol=1e-6)
    else:
        expected = 2.5 * (new.mean - old.mean) * np.exp(-2 * new.log_std) / 2
        np.testing.assert_allclose(penalty.mean, expected, rtol=1e-5)


def test_the_best_policy_under_a_penalty_is_known() -> None:
    """In one state sum_a new(a) A(a) - beta KL(old || new) is largest at new(a) = beta old(a) / (lambda - A(a))."""
    old, advantage, beta = jnp.array([0.2, 0.5, 0.3]), jnp.array([1.0, -1.0, 0.5]), 2.0

    def expected(logits: Any) -> Any:
        """The objective with each action weighed by its probability, and not by how often it was drawn."""
        new = jax.nn.log_softmax(logits)
        kl = jnp.full(3, (old * (jnp.log(old) - new)).sum())
        return value(FixedKL(beta), new - jnp.log(old), 3 * old * advantage, kl)

    # lambda, from sum_a new(a) = 1, by bisection
    low, high = float(advantage.max()), float(advantage.max()) + beta
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (beta * old / (middle - advantage)).sum() > 1 else (low, middle)
    best = beta * old / (low - advantage)
    assert best.sum() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(jax.grad(expected)(jnp.log(best)), 0.0, atol=1e-6)
    assert expected(jnp.log(best)) > expected(jnp.log(old))


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(0.0, 0.5), (0.0066, 0.5), (0.0067, 1.0), (0.01, 1.0), (0.0149, 1.0), (0.0151, 2.0), (1.0, 2.0)],
)
def test_the_penalty_doubles_above_one_and_a_half_targets_and_halves_below_two_thirds(kl: float, factor: float) -> None:
    objective = AdaptiveKL(0.01, 3.0)
    assert objective.init() == 3.0
    assert objective.update(objective.init(), jnp.float32(kl)) == pytest.approx(3.0 * factor)


def test_the_penalty_can_always_come_back() -> None:
    objective, beta = AdaptiveKL(0.01), jnp.float32(1.0)
    for _ in range(300):
        beta = objective.update(beta, jnp.float32(0.0))
    assert beta > 0
    for _ in range(30):
        beta = objective.update(beta, jnp.float32(1.0))
    assert beta > 100


def test_only_the_adaptive_one_has_a_state() -> None:
    for objective in OBJECTIVES:
        assert isinstance(objective, Objective)
        leaves = 1 if isinstance(objective, AdaptiveKL) else 0
        assert len(jax.tree.leaves(objective.init())) == leaves
        assert len(jax.tree.leaves(objective.update(objective.init(), jnp.float32(1.0)))) == leaves
    _, metrics = AdaptiveKL(0.01)(jnp.float32(5.0), Change(jnp.zeros(2), jnp.ones(2), jnp.zeros(2)), START)
    assert metrics["policy/kl_coefficient"] == 5.0
