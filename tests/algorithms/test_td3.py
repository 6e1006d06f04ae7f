"""The target against a batch worked by hand, smoothing noise within its bounds, and the policy's delay."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.algorithms.td3 import TD3, Learner
from parnassus.off_policy import Experience
from parnassus.types import BadInput, Spec

SPEC = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2, 2, (2,), np.float32), 1)
TINY = TD3(minibatch_size=32, replay_size=128, learning_starts=100, hidden_sizes=(16,))


def batch() -> Experience:
    keys = jax.random.split(jax.random.key(7), 4)
    o, next_o = jax.random.normal(keys[0], (32, 3)), jax.random.normal(keys[1], (32, 3))
    action = jax.random.uniform(keys[2], (32, 2), minval=-1, maxval=1)
    return Experience(o, action, jax.random.normal(keys[3], (32,)), next_o, 0.99 * (jnp.arange(32) % 4 > 0))


def learner(algorithm: TD3 = TINY) -> Learner:
    """One whose targets are other networks."""
    fresh, other = algorithm.init(jax.random.key(0), SPEC), algorithm.init(jax.random.key(1), SPEC)
    return fresh._replace(target_policy=other.policy, target_critics=other.critics)


@pytest.mark.parametrize("num_critics", [1, 2, 3])
def test_the_target_is_the_least_of_the_critics(num_critics: int) -> None:
    algorithm = dataclasses.replace(TINY, num_critics=num_critics)
    start, data, key = learner(algorithm), batch(), jax.random.key(1)
    _, metrics = algorithm.update_critics(start, data, key)
    action = algorithm.smoothed_action(start, data.next_observation, jax.random.clone(key))
    values = np.asarray(start.target_critics(data.next_observation, action))
    assert values.shape == (32, num_critics)
    y = np.asarray(data.reward) + np.asarray(data.discount) * values.min(axis=1)
    q = np.asarray(start.critics(data.observation, data.action))
    assert metrics["loss/value"] == pytest.approx(((q - y[:, None]) ** 2).mean(0).sum(), rel=1e-4)


def test_smoothing_noise_is_clipped_twice() -> None:
    """Within target_noise_limit of the target policy's action, and within the action bounds."""
    algorithm = dataclasses.replace(TINY, target_noise=5.0, target_noise_limit=0.5)
    start = learner(algorithm)
    far = start._replace(target_policy=jax.tree.map(lambda x: 20 * x, start.target_policy))
    observation = jax.random.normal(jax.random.key(2), (2000, 3))
    for state in (start, far):
        action, centre = (
            algorithm.smoothed_action(state, observation, jax.random.key(3)),
            state.target_policy(observation),
        )
        distance = np.abs(action - centre)
        assert distance.max() <= 0.5 + 1e-6
        assert (distance > 0.499).mean() > 0.3  # the noise was often beyond
        assert np.abs(action).max() <= 1.0
    assert (np.abs(algorithm.smoothed_action(far, observation, jax.random.key(3))) == 1.0).mean() > 0.2


def test_smoothing_noise_has_its_standard_deviation() -> None:
    start = learner()
    observation = jnp.zeros((20_000, 3))
    noise = TINY.smoothed_action(start, observation, jax.random.key(3)) - start.target_policy(observation)
    assert np.std(noise) == pytest.approx(0.2, rel=0.03)
    still = dataclasses.replace(TINY, target_noise=0.0).smoothed_action(start, observation[:5], jax.random.key(3))
    np.testing.assert_array_equal(still, start.target_policy(observation[:5]))


def test_the_policy_and_the_targets_wait() -> None:
    """d steps of the critics on d minibatches, then one of the policy on the last of them and one of the targets."""
    algorithm = dataclasses.replace(TINY, policy_delay=3, num_steps=3, tau=0.1)
    start = learner(algorithm)
    replay = start.replay.add(jax.tree.map(lambda x: x[:, None], batch()))
    key = jax.random.key(5)
    after, _ = algorithm.gradient_step(start, replay, key)
    wanted = start
    for step_key in jax.random.split(jax.random.clone(key), 3):
        sample_key, noise_key = jax.random.split(step_key)
        data = replay.sample(sample_key, 32)
        wanted, _ = algorithm.update_critics(wanted, data, noise_key)
        for name in ("policy", "target_policy", "target_critics"):
            assert getattr(wanted, name) is getattr(start, name)
    wanted, _ = algorithm.update_policy(wanted, data)
    for a, b in zip(jax.tree.leaves(after._replace(replay=None)), jax.tree.leaves(wanted._replace(replay=None))):  # noqa: B905
        np.testing.assert_allclose(a, b, atol=1e-5)
    for old, new, target in zip(
        *map(jax.tree.leaves, (start.target_critics, after.critics, after.target_critics)), strict=True
    ):
        np.testing.assert_allclose(target, 0.9 * old + 0.1 * new, atol=1e-6)


def test_the_policy_climbs_the_first_critic() -> None:
    algorithm = dataclasses.replace(TINY, learning_rate=1e-4)
    start, data = learner(algorithm), batch()
    after, metrics = algorithm.update_policy(start, data)
    first = lambda policy: start.critics(data.observation, policy(data.observation))[:, 0].mean()  # noqa: E731
    assert metrics["loss/policy"] == pytest.approx(-float(first(start.policy)), rel=1e-4)
    assert first(after.policy) > first(start.policy)


def test_a_delay_that_does_not_come_out_even_is_refused() -> None:
    with pytest.raises(BadInput, match="policy_delay 3 does not divide the 2 updates of an iteration"):
        dataclasses.replace(TINY, policy_delay=3).init(jax.random.key(0), SPEC)
