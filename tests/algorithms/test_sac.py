"""One update against the equations, the temperature's direction, and the first random actions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus import training
from parnassus.algorithms.sac import SAC
from parnassus.collect import ScanCollector
from parnassus.off_policy import Experience
from parnassus.schedules import Linear
from parnassus.types import Spec
from tests.probe_envs import Probe

SPEC = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2, 2, (2,), np.float32), 4)
TINY = SAC(minibatch_size=32, replay_size=128, learning_starts=100, hidden_sizes=(16,), learning_rate=1e-3)


def batch() -> Experience:
    keys = jax.random.split(jax.random.key(7), 4)
    o, next_o = jax.random.normal(keys[0], (32, 3)), jax.random.normal(keys[1], (32, 3))
    action = jax.random.uniform(keys[2], (32, 2), minval=-1, maxval=1)
    return Experience(o, action, jax.random.normal(keys[3], (32,)), next_o, 0.99 * (jnp.arange(32) % 4 > 0))


def test_the_critics_descend_on_the_soft_target() -> None:
    learner = TINY.init(jax.random.key(0), SPEC)
    data, key = batch(), jax.random.key(1)
    _, metrics = TINY.update(learner, data, key)
    next_key, _ = jax.random.split(jax.random.clone(key))
    next_action, next_log_prob = learner.policy(data.next_observation).sample_and_log_prob(next_key)
    next_q = learner.target_critics(data.next_observation, next_action)
    soft_value = np.minimum(next_q[:, 0], next_q[:, 1]) - 1.0 * next_log_prob
    y = data.reward + data.discount * soft_value
    q = learner.critics(data.observation, data.action)
    loss = ((q[:, 0] - y) ** 2).mean() + ((q[:, 1] - y) ** 2).mean()
    assert metrics["loss/value"] == pytest.approx(float(loss), rel=1e-5)
    assert metrics["value/mean"] == pytest.approx(float(q.mean()), rel=1e-5)


def test_the_targets_follow_slowly() -> None:
    algorithm = dataclasses.replace(TINY, tau=0.1)
    learner = algorithm.init(jax.random.key(0), SPEC)
    after, _ = algorithm.update(learner, batch(), jax.random.key(1))
    for old, new, target in zip(
        *map(jax.tree.leaves, (learner.target_critics, after.critics, after.target_critics)), strict=True
    ):
        np.testing.assert_allclose(target, 0.9 * old + 0.1 * new, atol=1e-6)


@pytest.mark.parametrize(("target_entropy", "direction"), [(-100.0, -1), (100.0, 1)])
def test_the_temperature_falls_while_the_entropy_is_above_its_target(target_entropy: float, direction: int) -> None:
    algorithm = dataclasses.replace(TINY, target_entropy=target_entropy)
    learner = algorithm.init(jax.random.key(0), SPEC)
    after, _ = algorithm.update(learner, batch(), jax.random.key(1))
    assert np.sign(after.log_temperature - learner.log_temperature) == direction


def test_the_target_entropy_is_minus_the_number_of_actions() -> None:
    """With the entropy's estimate between the two candidates, only -2 makes the temperature fall."""
    learner = TINY.init(jax.random.key(0), SPEC)
    _, metrics = TINY.update(learner, batch(), jax.random.key(1))
    entropy = float(metrics["policy/entropy"])
    default, _ = TINY.update(learner, batch(), jax.random.key(1))
    explicit, _ = dataclasses.replace(TINY, target_entropy=-2.0).update(learner, batch(), jax.random.key(1))
    assert entropy > -2.0
    assert default.log_temperature == explicit.log_temperature < learner.log_temperature


@pytest.mark.parametrize("rate, step", [(None, TINY.learning_rate), (1e-5, 1e-5), (Linear(2e-5, 0.0), 2e-5)])
def test_the_temperature_may_have_a_step_size_of_its_own(rate: float | Linear | None, step: float) -> None:
    """Adam's first step is as long as its step size; nothing else takes another step for it."""
    learner = TINY.init(jax.random.key(0), SPEC)
    after, _ = dataclasses.replace(TINY, temperature_learning_rate=rate).update(learner, batch(), jax.random.key(1))
    assert abs(after.log_temperature - learner.log_temperature) == pytest.approx(step, rel=1e-3)
    usual, _ = TINY.update(learner, batch(), jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, (after.policy, after.critics), (usual.policy, usual.critics))


def test_a_fixed_temperature_stays() -> None:
    algorithm = dataclasses.replace(TINY, temperature=0.3, learn_temperature=False)
    learner = algorithm.init(jax.random.key(0), SPEC)
    after, metrics = algorithm.update(learner, batch(), jax.random.key(1))
    assert metrics["policy/temperature"] == pytest.approx(0.3)
    assert after.log_temperature == learner.log_temperature


def test_the_first_actions_are_uniform_and_nothing_is_learned_yet() -> None:
    learner = TINY.init(jax.random.key(0), SPEC)
    observation = jnp.zeros((4000, 3))
    first, _, _ = TINY.act(TINY.behavior(learner), (), observation, jax.random.key(1), True)
    np.testing.assert_allclose(np.histogram(first, 4, (-1, 1))[0] / first.size, 0.25, atol=0.02)
    later = learner._replace(progress=dataclasses.replace(learner.progress, steps=jnp.int32(100)))
    drawn, _, _ = TINY.act(TINY.behavior(later), (), observation, jax.random.key(1), True)
    share = np.histogram(drawn, 4, (-1, 1))[0][0] / drawn.size
    assert share == pytest.approx(0.29, abs=0.02)  # P(tanh(x) < -1/2) of a standard normal x: the first policy


def test_critics_of_the_action_are_differentiated_through_the_sample() -> None:
    """The policy's step raises min Q - alpha log pi on the very samples it was made from."""
    algorithm = dataclasses.replace(TINY, learning_rate=1e-4, learn_temperature=False, temperature=0.1)
    learner = algorithm.init(jax.random.key(0), SPEC)
    data = batch()
    after, metrics = algorithm.update(learner, data, jax.random.key(1))
    _, action_key = jax.random.split(jax.random.key(1))
    action, log_prob = after.policy(data.observation).sample_and_log_prob(action_key)
    loss = (0.1 * log_prob - after.critics(data.observation, action).min(-1)).mean()
    assert loss < metrics["loss/policy"]


def test_reparameterised_gradients_are_score_function_gradients_in_expectation() -> None:
    """Of E[alpha log pi(a | o) - Q(o, a)]: through the sample, and by grad log pi times what the sample is worth."""
    n, alpha = 4_000, 0.3
    policy = TINY.init(jax.random.key(0), SPEC).policy
    observation = jnp.broadcast_to(jnp.array([0.3, -0.5, 0.8]), (n, 3))
    worth = lambda action, log_prob: alpha * log_prob - jnp.cos(3.0 * action).sum(-1) - action[:, 0]  # noqa: E731

    @jax.jit
    def gradients(key: jax.Array) -> tuple:
        path_key, score_key = jax.random.split(key)

        def through_the_sample(policy):
            return worth(*policy(observation).sample_and_log_prob(path_key)).mean()

        def by_the_score(policy):
            action, log_prob = jax.lax.stop_gradient(policy(observation).sample_and_log_prob(score_key))
            value = worth(action, log_prob)
            return ((value - value.mean()) * policy(observation).log_prob(action)).mean()

        return jax.grad(through_the_sample)(policy), jax.grad(by_the_score)(policy)

    samples = [gradients(key) for key in jax.random.split(jax.random.key(1), 30)]
    path, score = (
        np.stack([np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(pair[i])]) for pair in samples])
        for i in (0, 1)
    )
    error = np.sqrt((path.var(0, ddof=1) + score.var(0, ddof=1)) / 30)
    z = ((path.mean(0) - score.mean(0)) / (error + 1e-7))[np.abs(path.mean(0)) > 1e-6]
    assert len(z) > 20 and np.abs(z).max() < 5.0 and np.sqrt((z**2).mean()) < 1.6
    assert path.var(0).sum() < score.var(0).sum()  # what it is for


def test_the_entropy_settles_at_its_target() -> None:
    """Where one action is best, only the temperature keeps the policy wide."""
    algorithm = SAC(
        learning_rate=3e-3,
        num_steps=4,
        minibatch_size=64,
        replay_size=2_000,
        learning_starts=64,
        tau=0.05,
        temperature=0.1,
        target_entropy=-0.5,
        hidden_sizes=(16,),
    )
    collector = ScanCollector(Probe("action", continuous=True), 4)
    state = training.init(algorithm, collector, jax.random.key(0), 10_000)
    *_, chunk = training.train(algorithm, collector, state, 10_000)
    assert chunk.metrics["policy/entropy"] == pytest.approx(-0.5, abs=0.1)
