"""The target and both gradients against a batch worked by hand, the slow targets, and how it explores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.algorithms.ddpg import DDPG, Learner
from parnassus.exploration import GaussianNoise, OrnsteinUhlenbeck
from parnassus.off_policy import Experience
from parnassus.schedules import Linear
from parnassus.types import BadInput, Spec

SPEC = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2, 2, (2,), np.float32), 4)
TINY = DDPG(minibatch_size=32, replay_size=128, learning_starts=100, hidden_sizes=(16,))


def batch() -> Experience:
    keys = jax.random.split(jax.random.key(7), 4)
    o, next_o = jax.random.normal(keys[0], (32, 3)), jax.random.normal(keys[1], (32, 3))
    action = jax.random.uniform(keys[2], (32, 2), minval=-1, maxval=1)
    return Experience(o, action, jax.random.normal(keys[3], (32,)), next_o, 0.99 * (jnp.arange(32) % 4 > 0))


def learner(algorithm: DDPG = TINY) -> Learner:
    """One whose targets are other networks."""
    fresh, other = algorithm.init(jax.random.key(0), SPEC), algorithm.init(jax.random.key(1), SPEC)
    return fresh._replace(target_policy=other.policy, target_critic=other.critic)


@pytest.mark.parametrize("double", [False, True])
def test_the_target(double: bool) -> None:
    start, data = learner(), batch()
    _, metrics = dataclasses.replace(TINY, double=double).update(start, data)
    policy = start.policy if double else start.target_policy
    y = data.reward + data.discount * start.target_critic(data.next_observation, policy(data.next_observation))
    np.testing.assert_allclose(y[::4], data.reward[::4])  # terminal
    q = start.critic(data.observation, data.action)
    assert metrics["loss/value"] == pytest.approx(float(((q - y) ** 2).mean()), rel=1e-4)
    assert metrics["value/mean"] == pytest.approx(float(q.mean()), rel=1e-4)


def test_the_policy_gradient_is_the_deterministic_one() -> None:
    """Silver et al. 2014, equation 9: E[grad_theta mu(o) grad_a Q(o, a)], after the critic's step."""
    start, data = learner(), batch()
    after, metrics = TINY.update(start, data)
    dq_da = jax.grad(lambda a: after.critic(data.observation, a).sum())(start.policy(data.observation))
    _, pull_back = jax.vjp(lambda policy: policy(data.observation), start.policy)
    (gradient,) = pull_back(dq_da / 32)
    automatic = jax.grad(lambda p: after.critic(data.observation, p(data.observation)).mean())(start.policy)
    for wanted, found in zip(jax.tree.leaves(gradient), jax.tree.leaves(automatic), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    # Adam's first step is the sign of the gradient, upwards.
    for old, new, slope in zip(*map(jax.tree.leaves, (start.policy, after.policy, gradient)), strict=True):
        clear = np.abs(slope) > 1e-5
        np.testing.assert_allclose((new - old)[clear], 1e-3 * np.sign(slope)[clear], rtol=0.02)
    assert metrics["loss/policy"] == pytest.approx(
        -float(after.critic(data.observation, start.policy(data.observation)).mean()), rel=1e-4
    )


def test_the_targets_follow_slowly() -> None:
    algorithm = dataclasses.replace(TINY, tau=0.1)
    start = learner(algorithm)
    after, _ = algorithm.update(start, batch())
    for name in ("policy", "critic"):
        old, new, target = (
            jax.tree.leaves(x)
            for x in (getattr(start, "target_" + name), getattr(after, name), getattr(after, "target_" + name))
        )
        for o, n, t in zip(old, new, target, strict=True):
            np.testing.assert_allclose(t, 0.9 * o + 0.1 * n, atol=1e-6)


def test_actions_are_uniform_at_first_then_noisy_then_less_so() -> None:
    algorithm = dataclasses.replace(TINY, noise=GaussianNoise(Linear(0.3, 0.1)))
    fresh = algorithm.init(jax.random.key(0), SPEC)
    observation = jnp.zeros((4000, 3))
    mean = fresh.policy(observation[:1])

    def act(steps: int) -> np.ndarray:
        progress = dataclasses.replace(fresh.progress, steps=jnp.int32(steps), planned=jnp.int32(1000))
        behavior = algorithm.behavior(fresh._replace(progress=progress))
        return np.asarray(algorithm.act(behavior, (), observation, jax.random.key(1), True)[0])

    np.testing.assert_allclose(np.histogram(act(99), 4, (-1, 1))[0] / 8000, 0.25, atol=0.02)
    np.testing.assert_allclose((act(500) - mean).std(0), 0.2, atol=0.01)
    np.testing.assert_allclose((act(1000) - mean).std(0), 0.1, atol=0.01)
    assert np.abs(act(500)).max() <= 1.0
    quiet, _, _ = algorithm.act(algorithm.behavior(fresh), (), observation, jax.random.key(1), False)
    np.testing.assert_array_equal(quiet, np.broadcast_to(mean, quiet.shape))


def test_the_noise_that_drifts_is_remembered() -> None:
    algorithm = dataclasses.replace(TINY, noise=OrnsteinUhlenbeck(), learning_starts=0)
    fresh = algorithm.init(jax.random.key(0), SPEC)
    memory = algorithm.initial_memory(SPEC)
    assert memory.shape == (4, 2)
    _, after, _ = algorithm.act(algorithm.behavior(fresh), memory + 0.5, jnp.zeros((4, 3)), jax.random.key(1), True)
    assert after.shape == (4, 2)
    assert not np.allclose(after, 0.5)


def test_other_action_spaces_are_refused() -> None:
    with pytest.raises(BadInput, match=r"a deterministic policy needs a continuous \(Box\) action space, not Discrete"):
        TINY.init(jax.random.key(0), Spec(SPEC.observation_space, spaces.Discrete(2), 1))
