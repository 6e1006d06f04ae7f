"""VPG's gradient over all episodes of a small MDP, with each estimator; its regression; its options."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from parnassus.advantages import GAE, TD, NStep, RewardsToGo
from parnassus.algorithms.vpg import VPG, Learner
from parnassus.types import BadInput, Transition, pytree
from tests import exact_mdp
from tests.exact_mdp import episodes, expectation, layered_mdp, softmax, softmax_scores, spec, tabular

MDP = layered_mdp(0, discount=1.0)
THETA = np.random.default_rng(0).normal(size=(6, 2))
POLICY = softmax(THETA)


@pytree
class Plain(VPG):
    """The gradient itself, in place of Adam's step."""

    def optimizers(self, progress: Any) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        return optax.sgd(1.0), optax.sgd(self.value_learning_rate)


PLAIN = Plain(discount=1.0, num_steps=3, num_epochs=1, minibatch_size=3, normalize_advantages=False, hidden_sizes=())


def a_learner(algorithm: VPG, value: np.ndarray) -> Learner:
    learner: Learner = algorithm.init(jax.random.key(0), spec(MDP))
    return learner._replace(policy=tabular(learner.policy, THETA), value=tabular(learner.value, value))


@pytest.mark.parametrize("estimator", [GAE(0.5), NStep(2), RewardsToGo(), TD()])
def test_it_climbs_the_gradient_with_any_estimator(estimator: Any) -> None:
    algorithm = dataclasses.replace(PLAIN, estimator=estimator)
    learner = a_learner(algorithm, exact_mdp.state_values(MDP, POLICY))

    def step(trajectory: Transition) -> jax.Array:
        after, _ = algorithm.learn(learner, trajectory, jax.random.key(1))
        return after.policy.params["Dense_0"]["kernel"] - learner.policy.params["Dense_0"]["kernel"]

    exact = exact_mdp.policy_gradient(MDP, POLICY, softmax_scores(POLICY))
    np.testing.assert_allclose(expectation(step, *episodes(MDP, POLICY)), exact, atol=1e-5)


def test_the_regression_goes_towards_the_rewards_to_go_whatever_the_estimator() -> None:
    algorithm = dataclasses.replace(PLAIN, estimator=TD(), value_learning_rate=0.3, num_epochs=400)
    learner = a_learner(algorithm, np.zeros(6))
    _, steps = episodes(MDP, POLICY)
    one = jax.tree.map(lambda x: x[0], steps)
    after, metrics = algorithm.learn(learner, one, jax.random.key(1))
    to_go = jnp.cumsum(one.reward[::-1], axis=0)[::-1]
    np.testing.assert_allclose(after.value(after.encoder(one.observation)), to_go, rtol=1e-3)
    assert metrics["loss/value"] == pytest.approx(float((to_go**2).mean()), rel=1e-5)  # before it


def test_advantages_may_be_normalised() -> None:
    """Then neither a shift of all advantages nor a factor changes the step."""
    algorithm = dataclasses.replace(PLAIN, normalize_advantages=True, estimator=NStep(1), value_learning_rate=0.0)
    learner = a_learner(algorithm, np.zeros(6))
    _, steps = episodes(MDP, POLICY)
    one = jax.tree.map(lambda x: x[0], steps)
    changed = one._replace(reward=3.0 * one.reward + 5.0)
    after, other = (algorithm.learn(learner, x, jax.random.key(1))[0] for x in (one, changed))
    for a, b in zip(*map(jax.tree.leaves, (after.policy, other.policy)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_minibatches_must_divide_an_iteration() -> None:
    with pytest.raises(BadInput, match=r"minibatch_size=64 must divide num_steps \* num_envs = 10 \* 1 = 10"):
        VPG(num_steps=10, minibatch_size=64).init(jax.random.key(0), spec(MDP))
