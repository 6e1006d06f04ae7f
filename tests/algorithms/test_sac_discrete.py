"""One update against the equations, and the temperature's way to its target."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus import training
from parnassus.algorithms.sac_discrete import DiscreteSAC
from parnassus.collect import ScanCollector
from parnassus.off_policy import Experience
from parnassus.types import BadInput, Spec
from tests.probe_envs import Probe

SPEC = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4), 2)
TINY = DiscreteSAC(minibatch_size=32, replay_size=128, learning_starts=100, hidden_sizes=(16,), learning_rate=1e-3)


def batch() -> Experience:
    keys = jax.random.split(jax.random.key(7), 4)
    o, next_o = jax.random.normal(keys[0], (32, 3)), jax.random.normal(keys[1], (32, 3))
    action = jax.random.randint(keys[2], (32,), 0, 4)
    return Experience(o, action, jax.random.normal(keys[3], (32,)), next_o, 0.99 * (jnp.arange(32) % 4 > 0))


def test_expectations_are_sums_over_actions() -> None:
    """Every loss, action by action."""
    start, data = TINY.init(jax.random.key(0), SPEC), batch()
    start = start._replace(log_temperature=jnp.log(0.3), target_critics=TINY.init(jax.random.key(1), SPEC).critics)
    after, metrics = TINY.update(start, data)

    def probabilities(observation):
        logits = np.asarray(start.policy(observation).logits, np.float64)
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    pi = probabilities(data.next_observation)
    next_q = np.minimum(*(np.asarray(critic(data.next_observation)) for critic in start.target_critics))
    value = sum(pi[:, a] * (next_q[:, a] - 0.3 * np.log(pi[:, a])) for a in range(4))
    y = np.asarray(data.reward) + np.asarray(data.discount) * value
    q = [np.asarray(critic(data.observation))[np.arange(32), data.action] for critic in start.critics]
    assert metrics["loss/value"] == pytest.approx(sum(((each - y) ** 2).mean() for each in q), rel=1e-4)

    pi = probabilities(data.observation)
    least = np.minimum(*(np.asarray(critic(data.observation)) for critic in after.critics))
    wanted = sum(pi[:, a] * (0.3 * np.log(pi[:, a]) - least[:, a]) for a in range(4)).mean()
    assert metrics["loss/policy"] == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert metrics["policy/entropy"] == pytest.approx(-(pi * np.log(pi)).sum(1).mean(), rel=1e-4)


def test_the_targets_follow_slowly() -> None:
    algorithm = dataclasses.replace(TINY, tau=0.1)
    start = algorithm.init(jax.random.key(0), SPEC)
    after, _ = algorithm.update(start, batch())
    for old, new, target in zip(
        *map(jax.tree.leaves, (start.target_critics, after.critics, after.target_critics)), strict=True
    ):
        np.testing.assert_allclose(target, 0.9 * old + 0.1 * new, atol=1e-6)


@pytest.mark.parametrize(("share", "direction"), [(0.0, -1), (1.0, 1)])
def test_the_temperature_falls_while_the_entropy_is_above_its_target(share: float, direction: int) -> None:
    algorithm = dataclasses.replace(TINY, target_entropy_share=share)
    start = algorithm.init(jax.random.key(0), SPEC)
    kernel = start.policy.params["Dense_0"]["kernel"]
    params = {**start.policy.params, "Dense_0": {**start.policy.params["Dense_0"], "kernel": 100.0 * kernel}}
    start = start._replace(policy=dataclasses.replace(start.policy, params=params))  # neither uniform nor greedy
    after, _ = algorithm.update(start, batch())
    assert np.sign(after.log_temperature - start.log_temperature) == direction
    slow, _ = dataclasses.replace(algorithm, temperature_learning_rate=1e-5).update(start, batch())
    assert slow.log_temperature - start.log_temperature == pytest.approx(direction * 1e-5, rel=1e-2)
    fixed, _ = dataclasses.replace(algorithm, learn_temperature=False).update(start, batch())
    assert fixed.log_temperature == start.log_temperature


def test_the_entropy_settles_at_its_target() -> None:
    """Where one action is better, only the temperature keeps the other alive."""
    algorithm = DiscreteSAC(
        learning_rate=3e-3,
        minibatch_size=64,
        replay_size=2_000,
        learning_starts=64,
        tau=0.05,
        target_entropy_share=0.5,
        hidden_sizes=(16,),
    )
    collector = ScanCollector(Probe("action"), 4)
    state = training.init(algorithm, collector, jax.random.key(0), 30_000)
    *_, chunk = training.train(algorithm, collector, state, 30_000)
    assert chunk.metrics["policy/entropy"] == pytest.approx(0.5 * np.log(2), rel=0.1)


def test_other_action_spaces_are_refused() -> None:
    with pytest.raises(BadInput, match="DiscreteSAC needs a Discrete action space, not Box"):
        TINY.init(jax.random.key(0), Spec(SPEC.observation_space, spaces.Box(-1, 1, (2,)), 1))
