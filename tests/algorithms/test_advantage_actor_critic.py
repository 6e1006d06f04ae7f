"""The step of policy and critics, in expectation over all episodes of a small MDP."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from parnassus.algorithms.advantage_actor_critic import AdvantageActorCritic, Learner
from parnassus.types import Transition, pytree
from tests import exact_mdp
from tests.exact_mdp import episodes, expectation, layered_mdp, softmax, softmax_scores, spec, tabular

MDP = layered_mdp(0, discount=1.0)
THETA = np.random.default_rng(0).normal(size=(6, 2))
POLICY = softmax(THETA)


@pytree
class Plain(AdvantageActorCritic):
    """The gradients themselves, in place of Adam's steps."""

    def optimizers(self, progress: Any) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        return optax.sgd(1.0), optax.sgd(1.0)


def a_learner(algorithm: Plain, value: np.ndarray, q: np.ndarray) -> Learner:
    learner: Learner = algorithm.init(jax.random.key(0), spec(MDP))
    return learner._replace(
        policy=tabular(learner.policy, THETA),
        value=tabular(learner.value, value),
        action_value=tabular(learner.action_value, q),
    )


def step_of(after: Any, before: Any) -> jax.Array:
    return after.params["Dense_0"]["kernel"] - before.params["Dense_0"]["kernel"]


@pytest.mark.parametrize("baseline", ["the policy's values", "wrong values"])
def test_it_climbs_the_gradient_whatever_the_baseline(baseline: str) -> None:
    algorithm = Plain(discount=1.0, num_steps=3, hidden_sizes=())
    right = exact_mdp.state_values(MDP, POLICY)
    value = right if baseline == "the policy's values" else np.arange(6.0)
    learner = a_learner(algorithm, value, exact_mdp.action_values(MDP, POLICY))

    def steps(trajectory: Transition) -> tuple[jax.Array, jax.Array]:
        after, _ = algorithm.learn(learner, trajectory, jax.random.key(1))
        return step_of(after.policy, learner.policy), step_of(after.value, learner.value)[:, 0]

    policy_step, value_step = expectation(steps, *episodes(MDP, POLICY))
    exact = exact_mdp.policy_gradient(MDP, POLICY, softmax_scores(POLICY))
    np.testing.assert_allclose(policy_step, exact, atol=1e-5)
    backup = (POLICY * (exact_mdp.expected_reward(MDP) + MDP.transition @ value)).sum(-1)
    np.testing.assert_allclose(value_step, exact_mdp.occupancy(MDP, POLICY) * (backup - value), atol=1e-4)


@pytest.mark.parametrize("ended", [False, True])
def test_each_critic_has_its_own_target(ended: bool) -> None:
    algorithm, flag = Plain(discount=0.5, hidden_sizes=()), jnp.array([[ended]])
    q = np.repeat(10.0 + np.arange(6.0)[:, None], 2, axis=1)  # the same for both actions: whichever is drawn
    learner = a_learner(algorithm, np.arange(6.0), q)
    one = Transition(jnp.array([[1]]), jnp.array([[1]]), jnp.array([[2.0]]), jnp.array([[3]]), flag, ~flag, {})
    after, _ = algorithm.learn(learner, one, jax.random.key(1))
    goes_on = 0.0 if ended else 1.0
    expected = np.zeros((6, 2))
    expected[1, 1] = 2.0 + 0.5 * goes_on * 13.0 - 11.0
    np.testing.assert_allclose(step_of(after.action_value, learner.action_value), expected, atol=1e-5)
    of_value = [0, 2.0 + 0.5 * goes_on * 3.0 - 1.0, 0, 0, 0, 0]
    np.testing.assert_allclose(step_of(after.value, learner.value)[:, 0], of_value, atol=1e-5)
    advantage = 11.0 - 1.0  # of the action taken, by the critics as they were
    score = softmax_scores(POLICY)[1, 1]
    np.testing.assert_allclose(step_of(after.policy, learner.policy), advantage * score, rtol=1e-4, atol=1e-5)
