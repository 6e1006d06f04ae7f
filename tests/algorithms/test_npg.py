"""The natural policy gradient: TRPO's direction, as far as the quadratic model says, without a search."""

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from parnassus import training
from parnassus.actor_critic import flatten
from parnassus.algorithms.npg import NPG
from parnassus.algorithms.trpo import TRPO
from parnassus.collect import ScanCollector
from parnassus.envs.classic import CartPole, Pendulum

SETTINGS = {"num_steps": 64, "minibatch_size": 64, "num_epochs": 1, "hidden_sizes": (16,), "max_kl": 1e-4}


def one_step(cls: type, env: object, **changes: object) -> tuple:
    """The learner before and after an iteration, its metrics and encoded observations."""
    algorithm, collector = cls(**{**SETTINGS, **changes}), ScanCollector(env, 4)
    learner = training.init_learner(algorithm, jax.random.key(0), collector.spec)
    actor = collector.init(algorithm, jax.random.key(1))
    _, trajectory = collector.collect(algorithm, algorithm.behavior(learner), actor, jax.random.key(2))
    after, metrics = jax.jit(training.arrays(algorithm).learn)(learner, trajectory, jax.random.key(3))
    return learner, after, metrics, flatten(learner.encoder(trajectory.observation))


@pytest.mark.parametrize("env", [CartPole(), Pendulum()], ids=["discrete", "continuous"])
def test_the_step_moves_the_policy_by_max_kl(env: object) -> None:
    """Where the policy is linear and there is hardly any damping, as the quadratic model predicts; with it, by less."""
    before, after, metrics, observation = one_step(NPG, env, hidden_sizes=(), cg_damping=1e-5)
    kl = float(before.policy(observation).kl(after.policy(observation)).mean())
    assert kl == pytest.approx(1e-4, rel=0.1)
    assert metrics["policy/kl"] == pytest.approx(kl, rel=1e-2, abs=1e-7)
    damped = one_step(NPG, env, hidden_sizes=(), cg_damping=1.0)
    assert damped[0].policy(observation).kl(damped[1].policy(observation)).mean() < 0.9e-4


def test_it_is_trpo_without_the_search() -> None:
    """Where TRPO accepts the first step, both come to the same policy, and to the same value function."""
    (before, npg, *_), (_, trpo, metrics, _) = (one_step(cls, CartPole()) for cls in (NPG, TRPO))
    assert metrics["policy/rejected"] == 0 and metrics["policy/backtracks"] == 0
    old, new, other = (np.asarray(ravel_pytree(learner.policy)[0]) for learner in (before, npg, trpo))
    assert np.abs(new - old).max() > 1e-4
    np.testing.assert_allclose(new - old, other - old, rtol=1e-2, atol=1e-5)
    values = [np.asarray(ravel_pytree(learner.value)[0]) for learner in (npg, trpo)]
    np.testing.assert_allclose(*values, atol=1e-6)


def test_a_learning_rate_bounds_the_step() -> None:
    """In natural gradients; one that is longer than max_kl allows changes nothing."""
    before = one_step(NPG, CartPole())[0]

    def step(learning_rate: float | None) -> np.ndarray:
        after = one_step(NPG, CartPole(), learning_rate=learning_rate)[1]
        return np.asarray(ravel_pytree(after.policy)[0]) - np.asarray(ravel_pytree(before.policy)[0])

    free, far, near, nearer = step(None), step(1e4), step(2e-3), step(1e-3)
    np.testing.assert_allclose(far, free, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(near, 2 * nearer, rtol=1e-2, atol=1e-6)
    assert 0 < np.linalg.norm(near) < 0.5 * np.linalg.norm(free)
