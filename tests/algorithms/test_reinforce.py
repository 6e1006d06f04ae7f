"""The step against the definition, on a trajectory small enough to write down."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces

from parnassus.algorithms.reinforce import REINFORCE, Learner
from parnassus.types import Spec, Transition, pytree

SPEC = Spec(spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3), 1)
REWARD = np.array([1.0, 2.0, 4.0, 8.0, 16.0], np.float32)
ENDS = {1: "terminated", 3: "truncated"}  # two episodes end; the step after belongs to a third, unfinished one
TIME = np.array([5, 6, 0, 1, 0])  # the first episode began five steps before this trajectory


def trajectory() -> Transition:
    observation = jax.random.normal(jax.random.key(1), (5, 1, 2))
    flags = {kind: jnp.array([[ENDS.get(t) == kind] for t in range(5)]) for kind in ("terminated", "truncated")}
    action = jnp.array([[0], [1], [2], [0], [1]])
    extras = {"time": jnp.asarray(TIME)[:, None]}
    return Transition(observation, action, jnp.asarray(REWARD)[:, None], observation, **flags, extras=extras)


@pytree
class SGD(REINFORCE):
    """Plain gradient ascent, as in the lecture."""

    def optimizer(self, progress: Any) -> optax.GradientTransformation:
        return optax.sgd(self.learning_rate)


@pytest.mark.parametrize("baseline", [0.0, 3.0])
def test_the_step_is_the_definition(baseline: float) -> None:
    gamma, alpha = 0.5, 0.1
    algorithm = SGD(learning_rate=alpha, discount=gamma, num_steps=5, hidden_sizes=(4,), baseline_rate=0.25)
    learner: Learner = algorithm.init(jax.random.key(0), SPEC)._replace(baseline=jnp.array(baseline))
    steps = trajectory()
    returns = [1 + gamma * 2, 2.0, 4 + gamma * 8, 8.0]  # of the four steps whose episode ends here
    theta = learner.policy
    expected = jax.tree.map(jnp.zeros_like, theta)
    for t, g in enumerate(returns):
        score = jax.grad(lambda f, t=t: f(steps.observation[t, 0]).log_prob(steps.action[t, 0]))(theta)
        weight = alpha * gamma ** TIME[t] * (g - baseline) / 4
        expected = jax.tree.map(lambda total, x, w=weight: total + w * x, expected, score)
    after, metrics = algorithm.learn(learner, steps, jax.random.key(2))
    for a, b, e in zip(*map(jax.tree.leaves, (after.policy, theta, expected)), strict=True):
        np.testing.assert_allclose(a - b, e, atol=1e-6)
    assert metrics["policy/used_fraction"] == pytest.approx(4 / 5)
    assert after.baseline == pytest.approx(baseline + 0.25 * (np.mean(returns) - baseline))


def test_without_a_finished_episode_nothing_changes() -> None:
    algorithm = SGD(learning_rate=1.0, num_steps=5, hidden_sizes=(4,), baseline_rate=0.5)
    learner = algorithm.init(jax.random.key(0), SPEC)
    nothing = jnp.zeros((5, 1), bool)
    steps = trajectory()._replace(terminated=nothing, truncated=nothing)
    after, _ = algorithm.learn(learner, steps, jax.random.key(2))
    for a, b in zip(*map(jax.tree.leaves, (after.policy, learner.policy)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert after.baseline == 0.0
