"""The compatible critic: its features, what it learns where the answer is known, and the policy's step with it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces

from parnassus.algorithms.dpg import DPG, Learner, derivative
from parnassus.types import BadInput, Spec, Transition, pytree

SPEC = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32), 8)


@pytree
class Plain(DPG):
    """The gradients themselves, in place of Adam's steps; the policy stands still."""

    def optimizers(self, progress: Any) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        return optax.sgd(self.learning_rate), optax.sgd(self.critic_learning_rate)


def data(key: Any, reward: Any, policy: Any) -> Transition:
    """One-step episodes [64, 8]: reward(o, a) for actions around the policy's."""
    observation_key, action_key = jax.random.split(key)
    o = jax.random.normal(observation_key, (64, 8, 3))
    action = policy(o) + 0.7 * jax.random.normal(action_key, (64, 8, 2))
    ends = jnp.ones((64, 8), bool)
    return Transition(o, action, reward(o, action), o, ends, ~ends, {})


def test_features_are_the_policys_gradients() -> None:
    """Q is linear in w, with the weights grad_theta mu(o) (a - mu(o))."""
    algorithm = Plain(hidden_sizes=(4,))
    learner = algorithm.init(jax.random.key(0), SPEC)
    direction = algorithm.init(jax.random.key(1), SPEC).policy
    o, action = jnp.ones((1, 1, 3)), jnp.full((1, 1, 2), 0.4)
    q = algorithm.action_value(learner.policy, (direction, learner.value), o, action)
    jacobian = jax.jacobian(lambda policy: policy(o)[0, 0])(learner.policy)
    slope = sum(jnp.tensordot(j, d, d.ndim) for j, d in zip(*map(jax.tree.leaves, (jacobian, direction)), strict=True))
    wanted = ((action - learner.policy(o))[0, 0] * slope).sum() + learner.value(o)[0, 0]
    assert q[0, 0] == pytest.approx(float(wanted), rel=1e-4)
    np.testing.assert_allclose(derivative(learner.policy, direction, o)[1][0, 0], slope, rtol=1e-4, atol=1e-6)


def test_with_the_fitted_critic_the_step_is_the_true_gradient() -> None:
    """Theorem 3 on one-step episodes with a quadratic reward, whose gradient is known."""
    best = lambda o: jnp.stack([0.5 * o[..., 0], -0.3 * o[..., 1]], axis=-1)  # noqa: E731
    reward = lambda o, a: -((a - best(o)) ** 2).sum(-1)  # noqa: E731
    algorithm = Plain(learning_rate=0.0, critic_learning_rate=0.3)
    learner: Learner = algorithm.init(jax.random.key(0), SPEC)

    def fit(learner: Learner, key: Any) -> tuple[Learner, Any]:
        data_key, learn_key = jax.random.split(key)
        learner, _ = algorithm.learn(learner, data(data_key, reward, learner.policy), learn_key)
        return learner, learner.advantage

    _, path = jax.jit(lambda keys: jax.lax.scan(fit, learner, keys))(jax.random.split(jax.random.key(2), 4000))
    averaged = jax.tree.map(lambda x: x[1000:].mean(0), path)
    o = jax.random.normal(jax.random.key(5), (4000, 1, 3))

    def gradient(slope: jax.Array) -> jax.Array:
        grads = jax.grad(lambda policy: (policy(o) * slope).sum(-1).mean())(learner.policy)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])

    true = gradient(-2.0 * (learner.policy(o) - best(o)))
    found = gradient(derivative(learner.policy, averaged, o)[1])
    cosine = float(true @ found / jnp.linalg.norm(true) / jnp.linalg.norm(found))
    assert cosine > 0.99
    assert jnp.linalg.norm(found) == pytest.approx(float(jnp.linalg.norm(true)), rel=0.1)


def test_a_time_limit_is_bootstrapped_and_an_end_is_not() -> None:
    algorithm = Plain(discount=0.5, critic_learning_rate=1.0)
    learner = algorithm.init(jax.random.key(0), SPEC)
    o = jnp.ones((1, 8, 3))
    for terminated in (True, False):
        ends = jnp.full((1, 8), terminated)
        step = Transition(o, learner.policy(o), jnp.ones((1, 8)), 2 * o, ends, ~ends, {})
        _, metrics = algorithm.learn(learner, step, jax.random.key(0))
        target = 1.0 + (0.0 if terminated else 0.5 * learner.value(2 * o)[0, 0])
        assert metrics["loss/value"] == pytest.approx(0.5 * float(target - learner.value(o)[0, 0]) ** 2, rel=1e-4)


def test_other_action_spaces_are_refused() -> None:
    with pytest.raises(BadInput, match=r"a deterministic policy needs a continuous \(Box\) action space"):
        DPG().init(jax.random.key(0), Spec(SPEC.observation_space, spaces.Discrete(2), 1))
