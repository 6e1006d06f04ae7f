"""The step of policy and critic, in expectation over all episodes of a small MDP."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from parnassus.algorithms.td_actor_critic import Learner, TDActorCritic
from parnassus.types import Transition, pytree
from tests import exact_mdp
from tests.exact_mdp import episodes, expectation, layered_mdp, softmax, softmax_scores, spec, tabular

MDP = layered_mdp(0, discount=1.0)
THETA = np.random.default_rng(0).normal(size=(6, 2))
POLICY = softmax(THETA)
VALUE = exact_mdp.state_values(MDP, POLICY)


@pytree
class Plain(TDActorCritic):
    """The gradients themselves, in place of Adam's steps."""

    def optimizers(self, progress: Any) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        return optax.sgd(1.0), optax.sgd(1.0)


def step_of(after: Any, before: Any) -> jax.Array:
    return after.params["Dense_0"]["kernel"] - before.params["Dense_0"]["kernel"]


def expected_steps(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the table theta and of the table V, from the policy and this V."""
    algorithm = Plain(discount=MDP.discount, num_steps=3, hidden_sizes=())
    learner: Learner = algorithm.init(jax.random.key(0), spec(MDP))
    learner = learner._replace(policy=tabular(learner.policy, THETA), value=tabular(learner.value, value))

    def steps(trajectory: Transition) -> tuple[jax.Array, jax.Array]:
        after, _ = algorithm.learn(learner, trajectory, jax.random.key(1))
        return step_of(after.policy, learner.policy), step_of(after.value, learner.value)[:, 0]

    return expectation(steps, *episodes(MDP, POLICY))


def test_with_the_policys_values_it_climbs_the_gradient_and_the_values_stay() -> None:
    policy_step, value_step = expected_steps(VALUE)
    np.testing.assert_allclose(policy_step, exact_mdp.policy_gradient(MDP, POLICY, softmax_scores(POLICY)), atol=1e-5)
    np.testing.assert_allclose(value_step, 0.0, atol=1e-5)


def test_each_value_moves_by_its_expected_temporal_difference() -> None:
    value = np.arange(6.0)
    _, value_step = expected_steps(value)
    backup = (POLICY * (exact_mdp.expected_reward(MDP) + MDP.transition @ value)).sum(-1)
    np.testing.assert_allclose(value_step, exact_mdp.occupancy(MDP, POLICY) * (backup - value), atol=1e-4)


def test_a_time_limit_is_bootstrapped_and_an_end_is_not() -> None:
    algorithm = Plain(discount=0.5, hidden_sizes=())
    learner = algorithm.init(jax.random.key(0), spec(MDP))
    learner = learner._replace(value=tabular(learner.value, np.arange(6.0)))
    for ended in (False, True):
        flag = jnp.array([[ended]])
        state = jnp.array([[2]])
        one = Transition(state, jnp.array([[0]]), jnp.array([[1.0]]), state + 2, flag, ~flag, {})
        after, _ = algorithm.learn(learner, one, jax.random.key(1))
        delta = 1.0 + 0.5 * (0.0 if ended else 4.0) - 2.0
        np.testing.assert_allclose(step_of(after.value, learner.value)[:, 0], [0, 0, delta, 0, 0, 0], atol=1e-6)
