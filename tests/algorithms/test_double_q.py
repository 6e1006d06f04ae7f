"""Each target is the other critic's value of its own policy's action; each policy climbs its own critic."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.algorithms.double_q import DoubleQ, Learner
from parnassus.off_policy import Experience
from parnassus.types import Spec

SPEC = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2, 2, (2,), np.float32), 4)
TINY = DoubleQ(minibatch_size=32, replay_size=128, learning_starts=100, hidden_sizes=(16,))


def batch() -> Experience:
    keys = jax.random.split(jax.random.key(7), 4)
    o, next_o = jax.random.normal(keys[0], (32, 3)), jax.random.normal(keys[1], (32, 3))
    action = jax.random.uniform(keys[2], (32, 2), minval=-1, maxval=1)
    return Experience(o, action, jax.random.normal(keys[3], (32,)), next_o, 0.99 * (jnp.arange(32) % 4 > 0))


def learner() -> Learner:
    """One whose targets are other networks."""
    fresh, other = TINY.init(jax.random.key(0), SPEC), TINY.init(jax.random.key(1), SPEC)
    return fresh._replace(target_critics=other.critics)


def test_the_targets_are_crosswise() -> None:
    start, data = learner(), batch()
    _, metrics = TINY.update(start, data)
    next_o, wanted = data.next_observation, 0.0
    for critic, policy, judge in (
        (start.critics[0], start.policies[0], start.target_critics[1]),
        (start.critics[1], start.policies[1], start.target_critics[0]),
    ):
        y = data.reward + data.discount * judge(next_o, policy(next_o))
        wanted += float(((critic(data.observation, data.action) - y) ** 2).mean())
    assert metrics["loss/value"] == pytest.approx(wanted, rel=1e-4)


def test_each_policy_climbs_its_own_critic() -> None:
    algorithm = dataclasses.replace(TINY, learning_rate=1e-4)
    start, data = learner(), batch()
    after, _ = algorithm.update(start, data)
    for critic, old, new in zip(after.critics, start.policies, after.policies, strict=True):
        value = [critic(data.observation, policy(data.observation)).mean() for policy in (old, new)]
        assert value[1] > value[0]


def test_the_targets_follow_slowly() -> None:
    algorithm = dataclasses.replace(TINY, tau=0.1)
    start = learner()
    after, _ = algorithm.update(start, batch())
    for old, new, target in zip(
        *map(jax.tree.leaves, (start.target_critics, after.critics, after.target_critics)), strict=True
    ):
        np.testing.assert_allclose(target, 0.9 * old + 0.1 * new, atol=1e-6)
