"""TRPO's theory on exact MDPs, and its steps: inside the trust region, better by the surrogate, or not at all."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from parnassus import training
from parnassus.actor_critic import flatten
from parnassus.algorithms.trpo import TRPO
from parnassus.collect import ScanCollector
from parnassus.envs.classic import CartPole
from parnassus.types import BadInput
from tests import exact_mdp as exact

SMALL = TRPO(num_steps=64, minibatch_size=64, num_epochs=2, hidden_sizes=(16,), max_kl=0.02, cg_damping=0.01)


def two_policies(seed: int, distance: float) -> tuple[exact.ExactMDP, np.ndarray, np.ndarray]:
    """An MDP, a policy, and one near it."""
    rng = np.random.default_rng(seed)
    mdp = exact.random_mdp(seed)
    theta = rng.normal(size=(4, 3))
    return mdp, theta, theta + distance * rng.normal(size=theta.shape)


def surrogate(mdp: exact.ExactMDP, old: np.ndarray, new: np.ndarray) -> float:
    """L_old(new) = eta(old) + sum_s d_old(s) sum_a new(a | s) A_old(s, a) (equation 3)."""
    weight = exact.occupancy(mdp, old)[:, None] * new
    return exact.objective(mdp, old) + (weight * exact.advantages(mdp, old)).sum()


@pytest.mark.parametrize("seed", range(5))
def test_the_performance_difference(seed: int) -> None:
    """eta(new) = eta(old) + E_new[sum gamma^t A_old] (Kakade and Langford 2002; equation 1), however far apart."""
    mdp, theta, other = two_policies(seed, distance=2.0)
    old, new = exact.softmax(theta), exact.softmax(other)
    gain = (exact.occupancy(mdp, new)[:, None] * new * exact.advantages(mdp, old)).sum()
    assert exact.objective(mdp, new) == pytest.approx(exact.objective(mdp, old) + gain, rel=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_the_surrogate_agrees_to_first_order(seed: int) -> None:
    """Equation 4: the same value and the same gradient as eta at the old policy; and not elsewhere."""
    mdp, theta, other = two_policies(seed, distance=1.0)
    old = exact.softmax(theta)
    assert surrogate(mdp, old, old) == pytest.approx(exact.objective(mdp, old), rel=1e-12)
    of_surrogate = exact.finite_differences(lambda t: surrogate(mdp, old, exact.softmax(t)), theta)
    np.testing.assert_allclose(of_surrogate, exact.policy_gradient(mdp, old, exact.softmax_scores(old)), atol=1e-7)
    new = exact.softmax(other)
    assert abs(surrogate(mdp, old, new) - exact.objective(mdp, new)) > 1e-4


@pytest.mark.parametrize("distance", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_lower_bound(seed: int, distance: float) -> None:
    """Theorem 1: eta(new) >= L_old(new) - C max_s KL(old || new), C = 4 epsilon gamma / (1 - gamma)^2."""
    mdp, theta, other = two_policies(seed, distance)
    old, new = exact.softmax(theta), exact.softmax(other)
    kl = (old * np.log(old / new)).sum(-1).max()
    epsilon = np.abs(exact.advantages(mdp, old)).max()
    slack = 4 * epsilon * mdp.discount / (1 - mdp.discount) ** 2 * kl
    assert exact.objective(mdp, new) >= surrogate(mdp, old, new) - slack


def steps(algorithm: TRPO, iterations: int) -> list[tuple[Any, Any, dict, Any]]:
    """(learner before, learner after, metrics, encoded observations) of so many iterations on CartPole."""
    collector = ScanCollector(CartPole(), 4)
    state = training.init(algorithm, collector, jax.random.key(0), 10_000)
    algorithm = training.arrays(algorithm)
    learner, actor = state.learner, state.actor
    collect = jax.jit(lambda learner, actor, key: collector.collect(algorithm, algorithm.behavior(learner), actor, key))
    learn = jax.jit(algorithm.learn)
    found = []
    for key in jax.random.split(jax.random.key(1), iterations):
        collect_key, learn_key = jax.random.split(key)
        actor, trajectory = collect(learner, actor, collect_key)
        after, metrics = learn(learner, trajectory, learn_key)
        found.append((learner, after, metrics, flatten(learner.encoder(trajectory.observation))))
        learner = after
    return found


def test_accepted_steps_stay_in_the_trust_region() -> None:
    """By the policies themselves, before and after; and most of them are accepted, of nearly that length."""
    kls = []
    for before, after, metrics, observation in steps(SMALL, 12):
        kl = before.policy(observation).kl(after.policy(observation)).mean()
        assert kl <= 0.02 * (1 + 1e-4)
        assert metrics["policy/rejected"] == 0 and metrics["policy/surrogate_gain"] > 0
        assert float(metrics["policy/kl"]) == pytest.approx(float(kl), rel=1e-2, abs=1e-6)
        assert metrics["policy/cg_residual"] < 0.1
        kls.append(float(kl))
    assert np.mean(kls) > 0.01


def test_backtracking_shortens_a_step_that_is_too_long() -> None:
    """A quadratic model of a KL of 3 nats is far off: the first steps are refused, a shorter one is taken."""
    results = steps(dataclasses.replace(SMALL, max_kl=3.0, max_backtracks=30), 4)
    assert any(metrics["policy/backtracks"] > 0 for _, _, metrics, _ in results)
    for before, after, metrics, observation in results:
        assert metrics["policy/rejected"] == 0
        assert before.policy(observation).kl(after.policy(observation)).mean() <= 3.0 * (1 + 1e-4)


def test_a_refused_step_leaves_the_policy_as_it_was() -> None:
    """Bit for bit; the value function is fitted all the same."""
    (before, after, metrics, _), *_ = steps(dataclasses.replace(SMALL, max_kl=1e4, max_backtracks=1), 1)
    assert metrics["policy/rejected"] == 1 and metrics["policy/backtracks"] == 1
    for old, new in zip(jax.tree.leaves(before.policy), jax.tree.leaves(after.policy), strict=True):
        assert np.asarray(old).tobytes() == np.asarray(new).tobytes()
    changed = jax.tree.map(lambda old, new: bool((old != new).any()), before.value, after.value)
    assert any(jax.tree.leaves(changed))


def test_the_gain_expected_is_the_gain_had_where_steps_are_small() -> None:
    for _, _, metrics, _ in steps(dataclasses.replace(SMALL, max_kl=1e-5), 3):
        had, expected = (float(metrics[f"policy/surrogate_gain{which}"]) for which in ("", "_expected"))
        assert had == pytest.approx(expected, rel=0.1)


def test_the_entropy_bonus_is_part_of_the_surrogate() -> None:
    """A large one makes the policy more random."""
    start = dataclasses.replace(SMALL, normalize_advantages=False)
    plain, bonus = (steps(dataclasses.replace(start, entropy_coefficient=c), 10)[-1] for c in (0.0, 1000.0))
    assert bonus[2]["policy/entropy"] > plain[2]["policy/entropy"]
    assert bonus[2]["policy/entropy"] == pytest.approx(np.log(2), abs=1e-3)


def test_minibatches_must_divide_an_iteration() -> None:
    with pytest.raises(BadInput, match=r"minibatch_size=48 must divide num_steps \* num_envs = 64 \* 4 = 256"):
        steps(dataclasses.replace(SMALL, minibatch_size=48), 1)
