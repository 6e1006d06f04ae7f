"""The step of policy and critic, in expectation over all episodes of a small MDP."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces

from parnassus.algorithms.q_actor_critic import Learner, QActorCritic
from parnassus.types import BadInput, Spec, Transition, pytree
from tests import exact_mdp
from tests.exact_mdp import episodes, expectation, layered_mdp, softmax, softmax_scores, spec, tabular

MDP = layered_mdp(0, discount=1.0)
THETA = np.random.default_rng(0).normal(size=(6, 2))
POLICY = softmax(THETA)


@pytree
class Plain(QActorCritic):
    """The gradients themselves, in place of Adam's steps."""

    def optimizers(self, progress: Any) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        return optax.sgd(1.0), optax.sgd(1.0)


def a_learner(algorithm: Plain, q: np.ndarray) -> Learner:
    learner: Learner = algorithm.init(jax.random.key(0), spec(MDP))
    return learner._replace(policy=tabular(learner.policy, THETA), critic=tabular(learner.critic, q))


def step_of(after: Any, before: Any) -> jax.Array:
    return after.params["Dense_0"]["kernel"] - before.params["Dense_0"]["kernel"]


def test_with_the_policys_action_values_it_climbs_the_gradient() -> None:
    algorithm = Plain(discount=1.0, num_steps=3, hidden_sizes=())
    learner = a_learner(algorithm, exact_mdp.action_values(MDP, POLICY))
    step = expectation(
        lambda steps: step_of(algorithm.learn(learner, steps, jax.random.key(1))[0].policy, learner.policy),
        *episodes(MDP, POLICY),
    )
    np.testing.assert_allclose(step, exact_mdp.policy_gradient(MDP, POLICY, softmax_scores(POLICY)), atol=1e-5)


@pytest.mark.parametrize("ended", [False, True])
def test_the_critic_moves_by_sarsas_error_with_an_action_of_the_policys(ended: bool) -> None:
    """From one transition, many times: the next action is drawn, so the error's mean is Expected SARSA's."""
    algorithm, flag = Plain(discount=0.5, hidden_sizes=()), jnp.array([[ended]])
    q = np.arange(12.0).reshape(6, 2)
    learner = a_learner(algorithm, q)
    one = Transition(jnp.array([[1]]), jnp.array([[1]]), jnp.array([[2.0]]), jnp.array([[3]]), flag, ~flag, {})
    step = lambda key: step_of(algorithm.learn(learner, one, key)[0].critic, learner.critic)  # noqa: E731
    steps = np.array(jax.jit(jax.vmap(step))(jax.random.split(jax.random.key(2), 4000)))
    errors = steps[:, 1, 1].copy()
    steps[:, 1, 1] = 0.0
    np.testing.assert_array_equal(steps, 0.0)
    possible = 2.0 + 0.5 * (0.0 if ended else 1.0) * q[3] - q[1, 1]
    assert {round(float(error), 4) for error in errors} == {round(float(error), 4) for error in possible}
    assert errors.mean() == pytest.approx(POLICY[3] @ possible, abs=0.03)


def test_actions_that_are_neither_one_of_n_nor_real_are_refused() -> None:
    where = Spec(spaces.Discrete(2), spaces.MultiBinary(2), 1)
    with pytest.raises(BadInput, match="an action value needs a Discrete or Box action space, not MultiBinary"):
        QActorCritic().init(jax.random.key(0), where)


def test_a_real_action_is_read_beside_the_observation() -> None:
    where = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2, 2), np.float32), 1)
    critic = QActorCritic(hidden_sizes=()).init(jax.random.key(0), where).critic
    observation, action = jnp.ones((5, 3)), jnp.zeros((5, 2, 2)).at[:, 1, 0].set(jnp.arange(5.0))
    q = critic(observation, action)
    weight = critic.params["Dense_0"]["kernel"][3 + 2, 0]
    np.testing.assert_allclose(np.diff(q), np.full(4, weight), rtol=1e-4)
