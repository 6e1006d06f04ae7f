"""Bellman's backup and what is done with it: by hand, as a contraction, as a linear system."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parnassus import bellman
from parnassus import dynamic_programming as dp
from parnassus.types import BadInput
from tests.finite_mdps import random_mdp, tables


def test_a_backup_is_the_expectation_over_outcomes() -> None:
    mdp = random_mdp(2, 6, 3, 4)
    transition, reward = tables(mdp)
    v = np.random.default_rng(0).normal(size=6)
    backup = bellman.tables_of(mdp, jnp.float32(0.9))
    np.testing.assert_allclose(backup(jnp.asarray(v, jnp.float32)).T, reward + 0.9 * transition @ v, atol=1e-5)
    policy = np.random.default_rng(1).dirichlet(np.ones(3), 6)
    of_policy = backup.of(jnp.asarray(policy, jnp.float32))(jnp.asarray(v, jnp.float32))
    np.testing.assert_allclose(of_policy[0], (policy * (reward + 0.9 * transition @ v)).sum(-1), atol=1e-5)
    with jax.enable_x64(True):
        wide = bellman.tables_in_double(mdp, 0.9)
        np.testing.assert_allclose(wide(jnp.asarray(v)).T, reward + 0.9 * transition @ v, atol=1e-6)
        assert wide.reward.dtype == jnp.float64


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), discount=st.sampled_from([0.3, 0.9]))
def test_backups_contract(seed: int, discount: float) -> None:
    """|T v - T w| <= gamma |v - w|, for the best actions and for a policy's."""
    mdp = random_mdp(seed, 7, 3, 4)
    v, w = np.random.default_rng(seed).normal(0.0, 10.0, (2, 7))
    backup = bellman.tables_of(mdp, jnp.float32(discount))
    q_v, q_w = (np.asarray(backup(jnp.asarray(x, jnp.float32))).T for x in (v, w))
    gap = discount * np.abs(v - w).max() + 1e-4
    assert np.abs(q_v.max(-1) - q_w.max(-1)).max() <= gap
    assert np.abs(q_v.mean(-1) - q_w.mean(-1)).max() <= gap


def test_one_sweep_of_each_kind() -> None:
    mdp = random_mdp(4, 6, 3, 4)
    transition, reward = tables(mdp)
    backup = bellman.tables_of(mdp, jnp.float32(0.9))
    v, count, done = bellman.sweeps(backup, "jacobi", 0.9, 0.0, 1)
    np.testing.assert_allclose(v, reward.max(-1), atol=1e-6)
    assert count == 1 and not done
    in_place = np.zeros(6)
    for s in range(6):
        in_place[s] = (reward[s] + 0.9 * transition[s] @ in_place).max()
    np.testing.assert_allclose(bellman.sweeps(backup, "gauss-seidel", 0.9, 0.0, 1)[0], in_place, atol=1e-5)
    soft, count, done = bellman.soft_sweeps(backup, jnp.float32(0.5), 0.9, 0.0, 1)
    np.testing.assert_allclose(soft, 0.5 * np.log(np.exp(reward / 0.5).sum(-1)), atol=1e-5)
    assert count == 1 and not done
    best = reward.max(-1)
    chosen = reward.argmax(-1)
    then = reward[np.arange(6), chosen] + 0.9 * transition[np.arange(6), chosen] @ best
    np.testing.assert_allclose(bellman.improving_sweeps(backup, 2, 0.9, 0.0, 1)[0], then, atol=1e-5)


def test_large_systems_are_solved_without_their_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    mdp = random_mdp(1, 300, 2, 5)
    dense = dp.evaluate(mdp, "random", 0.95, method="linear")
    jax.clear_caches()
    monkeypatch.setattr(bellman, "DENSE", 10)
    np.testing.assert_allclose(dp.evaluate(mdp, "random", 0.95, method="linear").v, dense.v, atol=2e-4)
    visits = bellman.solve_transposed(bellman.tables_of(mdp, jnp.float32(0.95)).of(dense.policy), mdp.start)
    jax.clear_caches()
    monkeypatch.undo()
    exact = bellman.solve_transposed(bellman.tables_of(mdp, jnp.float32(0.95)).of(dense.policy), mdp.start)
    np.testing.assert_allclose(visits, exact, atol=1e-4)


def test_what_cannot_be_swept_is_refused() -> None:
    backup = bellman.tables_of(random_mdp(0, 3, 2, 2), jnp.float32(0.9))
    with pytest.raises(BadInput, match="tolerance must be at least 0, not -1"):
        bellman.sweeps(backup, "jacobi", 0.9, -1.0, 10)
    with pytest.raises(BadInput, match="max_iterations must be at least 1, not 0"):
        bellman.soft_sweeps(backup, jnp.float32(1.0), 0.9, 0.0, 0)
