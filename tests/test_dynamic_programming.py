"""Dynamic programming: routes that share nothing agree, bounds hold, what cannot be solved is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from parnassus import dynamic_programming as dp
from parnassus import envs
from parnassus.envs.mdp import FiniteMDP
from parnassus.types import BadInput
from tests.finite_mdps import random_mdp, tables

ORDERS = ("jacobi", "gauss-seidel", "random", "prioritized")


def value_by_linear_programme(mdp: FiniteMDP, discount: float) -> np.ndarray:
    """v* = argmin sum v, subject to v(s) >= r(s, a) + gamma P v for all s, a (Puterman 1994, section 6.9)."""
    transition, reward = tables(mdp)
    size = mdp.num_states
    above = (discount * transition - np.eye(size)[:, None]).reshape(-1, size)
    found = linprog(np.ones(size), A_ub=above, b_ub=-reward.ravel(), bounds=(None, None), method="highs")
    assert found.success
    return found.x


MDPS = {
    "seed": st.integers(0, 10_000),
    "num_states": st.just(7),
    "num_actions": st.sampled_from([1, 3]),
    "num_outcomes": st.sampled_from([1, 4]),
    "discount": st.sampled_from([0.0, 0.5, 0.95]),
}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(**MDPS)
def test_all_roads_lead_to_the_best_policy(
    seed: int, num_states: int, num_actions: int, num_outcomes: int, discount: float
) -> None:
    mdp = random_mdp(seed, num_states, num_actions, num_outcomes)
    best = value_by_linear_programme(mdp, discount)
    found = [dp.value_iteration(mdp, discount, order=order) for order in ORDERS]  # type: ignore[arg-type]
    found.append(dp.policy_iteration(mdp, discount))
    found.append(dp.generalized_policy_iteration(mdp, discount, 4))
    for solution in found:
        assert solution.converged
        np.testing.assert_allclose(solution.v, best, atol=2e-4)
        assert np.abs(solution.v - best).max() <= solution.bound + 2e-5  # float32, near 20
        # The policy is as good as it says: evaluated on its own, by another route.
        transition, reward = tables(mdp)
        policy = np.asarray(solution.policy, np.float64)
        move, pay = np.einsum("sa,sat->st", policy, transition), (policy * reward).sum(-1)
        np.testing.assert_allclose(np.linalg.solve(np.eye(num_states) - discount * move, pay), best, atol=5e-4)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(**MDPS)
def test_sweeps_and_linear_systems_agree(
    seed: int, num_states: int, num_actions: int, num_outcomes: int, discount: float
) -> None:
    mdp = random_mdp(seed, num_states, num_actions, num_outcomes)
    policy = np.random.default_rng(seed).dirichlet(np.ones(num_actions), num_states)
    transition, reward = tables(mdp)
    move, pay = np.einsum("sa,sat->st", policy, transition), (policy * reward).sum(-1)
    exact = np.linalg.solve(np.eye(num_states) - discount * move, pay)
    for method in (*ORDERS, "linear"):
        solution = dp.evaluate(mdp, policy, discount, method=method)  # type: ignore[arg-type]
        np.testing.assert_allclose(solution.v, exact, atol=2e-4)
        np.testing.assert_allclose(solution.q, reward + discount * transition @ exact, atol=2e-4)
        assert np.abs(solution.v - exact).max() <= solution.bound + 2e-5


def test_a_bound_below_the_tolerance_is_kept() -> None:
    mdp = random_mdp(0, 50, 3, 4)
    exact = value_by_linear_programme(mdp, 0.9)
    for tolerance in (1.0, 0.1, 1e-2, 1e-3):
        solution = dp.value_iteration(mdp, 0.9, tolerance=tolerance)
        assert np.abs(solution.v - exact).max() <= solution.bound <= tolerance
    few = dp.value_iteration(mdp, 0.9, max_iterations=3)
    assert not few.converged and few.iterations == 3 and few.bound > 1e-3
    first = dp.policy_iteration(mdp, 0.9, max_iterations=0)  # one policy, evaluated
    assert not first.converged and first.iterations == 0
    assert first.bound >= np.abs(first.v - exact).max() > 1e-3
    assert np.abs(few.v - exact).max() <= few.bound


def test_in_place_needs_fewer_sweeps() -> None:
    """On a corridor against the order of the states, and by policy iteration's few improvements."""
    mdp = envs.make("jax:FrozenLake8x8-v1")
    count = {order: dp.value_iteration(mdp, 0.99, order=order).iterations for order in ORDERS}  # type: ignore[arg-type]
    assert max(count[order] for order in ORDERS[1:]) < count["jacobi"]
    assert dp.policy_iteration(mdp, 0.99).iterations < 20
    sweeps = [dp.generalized_policy_iteration(mdp, 0.99, k).iterations for k in (1, 4, 16)]
    assert sweeps[0] == count["jacobi"] and sweeps == sorted(sweeps, reverse=True)


@pytest.mark.parametrize("discount", [0.5, 0.9])
def test_monotonic_policy_iteration_never_falls(discount: float) -> None:
    """Nor does it take more than the bound that it maximises allows: C KL of each step is paid by the gain."""
    mdp = random_mdp(3, 5, 3, 5)
    steps = dp.monotonic_policy_iteration(mdp, discount, 200)
    gains = np.diff(steps.performance)
    assert (gains >= -1e-12).all() and gains.sum() > 0.1
    assert np.isfinite(steps.kl).all() and (steps.kl >= -1e-12).all()
    assert (gains[:50] >= 0.5 * steps.penalty[:50] * steps.kl[:50]).all()  # at a peak of g(d) - C d, g >= C d
    best = float(dp.value_iteration(mdp, discount).v @ mdp.start)
    assert steps.performance[-1] <= best + 1e-5
    np.testing.assert_allclose(steps.policy.sum(-1), 1.0, atol=1e-6)


def test_the_best_policy_within_a_divergence() -> None:
    """Against many random policies on the limit's edge."""
    rng = np.random.default_rng(0)
    policy, advantage, limit = rng.dirichlet(np.ones(4)), rng.normal(size=4), 0.05
    found = np.asarray(dp._best_within(*(jnp.asarray(x, jnp.float32) for x in (policy, advantage, limit))))
    assert (policy * np.log(policy / found)).sum() == pytest.approx(limit, rel=1e-3)
    others = rng.dirichlet(np.ones(4), 200_000) * 0.999 + 0.00025
    inside = others[(policy * np.log(policy / others)).sum(-1) <= limit]
    assert len(inside) > 100 and (inside @ advantage).max() <= found @ advantage + 1e-5


def test_soft_values() -> None:
    """v solves v = r_pi + tau H(pi) + gamma P v for pi = softmax(q / tau); a low temperature is none."""
    mdp, discount, tau = random_mdp(5, 6, 3, 4), 0.9, 0.3
    solution = dp.soft_value_iteration(mdp, discount, tau)
    policy = np.asarray(solution.policy, np.float64)
    transition, reward = tables(mdp)
    move = np.einsum("sa,sat->st", policy, transition)
    pay = (policy * (reward - tau * np.log(policy))).sum(-1)
    np.testing.assert_allclose(solution.v, np.linalg.solve(np.eye(6) - discount * move, pay), atol=1e-3)
    np.testing.assert_allclose(policy, np.asarray(jax.nn.softmax(solution.q / tau)), atol=1e-5)
    cold = dp.soft_value_iteration(mdp, discount, 1e-3)
    np.testing.assert_allclose(cold.v, dp.value_iteration(mdp, discount).v, atol=2e-2)


def test_terminal_outcomes_have_no_future() -> None:
    """Also where they lead to a state that has one."""
    mdp = FiniteMDP.create([[[0]]], [[[1.0]]], [[[2.0]]], [[[True]]], [1.0])
    assert float(dp.value_iteration(mdp, 0.9).v[0]) == 2.0


def test_where_episodes_can_end() -> None:
    """0 -> 1 -> end; 2 only to itself, with reward; 3 only to itself, without."""
    mdp = FiniteMDP.create(
        np.array([[1, 2], [1, 0], [2, 2], [3, 3]])[..., None],
        np.ones((4, 2, 1)),
        np.array([[0, 0], [1, 0], [1, 1], [0, 0]])[..., None],
        np.array([[0, 0], [1, 0], [0, 0], [0, 0]])[..., None],
        np.ones(4) / 4,
    )
    assert dp.ends(mdp).tolist() == [True, True, False, True]
    always_second = jax.nn.one_hot(jnp.ones(4, int), 2)
    assert dp.ends(mdp, always_second).tolist() == [False, False, False, True]
    with pytest.raises(BadInput, match="from 1 of 4 states, such as state 2, no policy ends it"):
        dp.value_iteration(mdp, 1.0)
    with pytest.raises(BadInput, match="from 3 of 4 states, such as state 0, this policy does not end it"):
        dp.evaluate(mdp, [1, 1, 0, 0], 1.0)


def test_policy_iteration_without_discount_begins_with_a_policy_that_ends() -> None:
    solution = dp.policy_iteration(envs.make("jax:CliffWalking-v1"), 1.0)
    assert float(solution.v[36]) == -13 and solution.bound == np.inf


MDP = FiniteMDP.create(
    [[[0], [1]], [[1], [0]]], np.ones((2, 2, 1)), np.ones((2, 2, 1)), np.zeros((2, 2, 1)), [1.0, 0.0]
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dp.value_iteration(MDP, 1.5), "discount must be in"),
        (lambda: dp.value_iteration(MDP, float("nan")), "discount must be in"),
        (lambda: dp.value_iteration(MDP, 0.9, tolerance=-1.0), "tolerance must be at least 0"),
        (lambda: dp.value_iteration(MDP, 0.9, max_iterations=0), "max_iterations must be at least 1"),
        (lambda: dp.value_iteration(MDP, 0.9, order="best"), "unknown order of sweeps 'best'"),
        (lambda: dp.generalized_policy_iteration(MDP, 0.9, 0), "sweeps must be at least 1"),
        (lambda: dp.soft_value_iteration(MDP, 0.9, 0.0), "temperature must be positive"),
        (lambda: dp.monotonic_policy_iteration(MDP, 1.0, 1), "with discount 1|needs a discount below 1"),
        (lambda: dp.evaluate(MDP, "greedy", 0.9), "or 'random', not 'greedy'"),
        (lambda: dp.evaluate(MDP, [0, 2], 0.9), "actions must be 0 to 1, not 0 to 2"),
        (lambda: dp.evaluate(MDP, [[0.5, 0.5]], 0.9), r"has the shape \(2, 2\)"),
        (lambda: dp.evaluate(MDP, [[0.5, 0.5], [0.5, 0.4]], 0.9), "in state 1 are no distribution"),
    ],
)
@pytest.mark.wrong_types
def test_bad_input(call, message) -> None:
    with pytest.raises(BadInput, match=message):
        call()
