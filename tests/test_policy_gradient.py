"""The policy gradient theorem, exactly: estimators averaged over all episodes of small MDPs against J's derivatives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces

from parnassus.actor_critic import soft_rewards
from parnassus.algorithms.a2c import A2C
from parnassus.algorithms.reinforce import REINFORCE
from parnassus.types import Spec, Transition, pytree
from tests import exact_mdp
from tests.exact_mdp import (
    ExactMDP,
    Path,
    episodes,
    expectation,
    layered_mdp,
    random_mdp,
    softmax,
    softmax_scores,
    spec,
    tabular,
)

SEEDS = [0, 1, 2, 3]


def preferences(mdp: ExactMDP, seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 100).normal(size=mdp.transition.shape[:2])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_theorem_gives_the_derivatives_of_j(seed: int) -> None:
    mdp = random_mdp(seed)
    theta = preferences(mdp, seed)
    policy = softmax(theta)
    exact = exact_mdp.policy_gradient(mdp, policy, softmax_scores(policy))
    measured = exact_mdp.finite_differences(lambda x: exact_mdp.objective(mdp, softmax(x)), theta)
    np.testing.assert_allclose(exact, measured, atol=1e-8)
    assert np.abs(exact).max() > 1e-3


# What multiplies gamma^t grad log pi(a_t | s_t): (mdp, policy, path) -> one number for each step.
def total_return(mdp: ExactMDP, policy: np.ndarray, path: Path) -> np.ndarray:
    """R(tau), seen from each step: what came before included."""
    time = np.arange(len(path.rewards))
    return (mdp.discount**time @ np.array(path.rewards)) / mdp.discount**time


def rewards_to_go(mdp: ExactMDP, policy: np.ndarray, path: Path) -> np.ndarray:
    returns, following = [], 0.0
    for reward in reversed(path.rewards):
        following = reward + mdp.discount * following
        returns.append(following)
    return np.array(returns[::-1])


def with_baseline(mdp: ExactMDP, policy: np.ndarray, path: Path) -> np.ndarray:
    return rewards_to_go(mdp, policy, path) - exact_mdp.state_values(mdp, policy)[list(path.states)]


def action_value(mdp: ExactMDP, policy: np.ndarray, path: Path) -> np.ndarray:
    return exact_mdp.action_values(mdp, policy)[list(path.states), list(path.actions)]


def advantage(mdp: ExactMDP, policy: np.ndarray, path: Path) -> np.ndarray:
    return exact_mdp.advantages(mdp, policy)[list(path.states), list(path.actions)]


def td_error(mdp: ExactMDP, policy: np.ndarray, path: Path) -> np.ndarray:
    value = exact_mdp.state_values(mdp, policy)[list(path.states)]
    return np.array(path.rewards) + mdp.discount * np.append(value[1:], 0.0) - value


FORMS: list[Callable] = [total_return, rewards_to_go, with_baseline, action_value, advantage, td_error]


def moments(mdp: ExactMDP, policy: np.ndarray, form: Callable) -> tuple[np.ndarray, float]:
    """The estimator's mean, and the sum of its components' variances, over all episodes."""
    scores = softmax_scores(policy)
    mean, square = np.zeros(policy.shape), 0.0
    for path in exact_mdp.paths(mdp, policy):
        weight = mdp.discount ** np.arange(len(path.rewards)) * form(mdp, policy, path)
        sample = np.tensordot(weight, scores[list(path.states), list(path.actions)], axes=1)
        mean += path.probability * sample
        square += path.probability * (sample**2).sum()
    return mean, square - (mean**2).sum()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_gradient_has_the_same_expectation(form: Callable, seed: int) -> None:
    """Causality, a baseline, Q, the advantage and the TD error change nothing but the variance."""
    mdp = layered_mdp(seed)
    policy = softmax(preferences(mdp, seed))
    assert sum(path.probability for path in exact_mdp.paths(mdp, policy)) == pytest.approx(1.0)
    mean, _ = moments(mdp, policy, form)
    exact = exact_mdp.policy_gradient(mdp, policy, softmax_scores(policy))
    np.testing.assert_allclose(mean, exact, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_forms_differ_in_variance(seed: int) -> None:
    """Each step of the derivation takes some away: causality, then averaging over the future, then a baseline. The TD
    error is the advantage and the noise of one step, the return less its baseline is it and the noise of all."""
    mdp = layered_mdp(seed)
    policy = softmax(preferences(mdp, seed))
    variance = {form.__name__: moments(mdp, policy, form)[1] for form in FORMS}
    assert variance["total_return"] > variance["rewards_to_go"] > variance["action_value"] > variance["advantage"]
    assert variance["rewards_to_go"] > variance["with_baseline"] > variance["td_error"] > variance["advantage"]


# From here on, the library's own gradients.
@pytree
class Plain(REINFORCE):
    """The gradient itself, in place of a step of Adam's."""

    def optimizer(self, progress: Any) -> optax.GradientTransformation:
        return optax.sgd(1.0)


@pytest.mark.parametrize("baseline", [0.0, 5.0])
def test_reinforce_follows_the_gradient_of_the_discounted_return(baseline: float) -> None:
    mdp = layered_mdp(0)
    theta = preferences(mdp, 0)
    policy = softmax(theta)
    algorithm = Plain(discount=mdp.discount, num_steps=3, hidden_sizes=())
    learner = algorithm.init(jax.random.key(0), spec(mdp))
    learner = learner._replace(policy=tabular(learner.policy, theta), baseline=jnp.array(baseline))

    def ascended(steps: Transition) -> Any:
        after, _ = algorithm.learn(learner, steps, jax.random.key(1))
        return jax.tree.map(jnp.subtract, after.policy.params, learner.policy.params)

    step = expectation(ascended, *episodes(mdp, policy))["Dense_0"]
    exact = exact_mdp.policy_gradient(mdp, policy, softmax_scores(policy))
    np.testing.assert_allclose(step["kernel"], exact, atol=1e-5)
    np.testing.assert_allclose(step["bias"], exact.sum(0), atol=1e-5)


def test_reinforces_entropy_bonus_is_the_gradient_of_the_mean_entropy() -> None:
    mdp = layered_mdp(0)
    theta = preferences(mdp, 0)
    policy = softmax(theta)
    algorithm = Plain(discount=mdp.discount, num_steps=3, hidden_sizes=(), entropy_coefficient=0.3)
    learner = algorithm.init(jax.random.key(0), spec(mdp))
    learner = learner._replace(policy=tabular(learner.policy, theta))
    _, steps = episodes(mdp, policy)
    one = jax.tree.map(lambda x: x[0], steps)
    one = one._replace(reward=jnp.zeros_like(one.reward))
    after, metrics = algorithm.learn(learner, one, jax.random.key(1))
    visited = np.asarray(one.observation)[:, 0]

    def mean_entropy(theta: np.ndarray) -> float:
        p = softmax(theta)[visited]
        return float(-(p * np.log(p)).sum(-1).mean())

    expected = 0.3 * exact_mdp.finite_differences(mean_entropy, theta)
    np.testing.assert_allclose(after.policy.params["Dense_0"]["kernel"] - theta, expected, atol=1e-6)
    assert metrics["policy/entropy"] == pytest.approx(mean_entropy(theta), rel=1e-5)


def a2c_gradient(mdp: ExactMDP, theta: np.ndarray, value: np.ndarray, temperature: float = 0.0, **options: Any) -> Any:
    """The expected gradient with respect to theta, of A2C with this value function and a discount of 1."""
    algorithm = A2C(discount=1.0, num_steps=3, hidden_sizes=(), value_coefficient=0.0, **options)
    learner = algorithm.init(jax.random.key(0), spec(mdp))
    networks = learner.networks._replace(
        policy=tabular(learner.networks.policy, theta), value=tabular(learner.networks.value, value)
    )

    def ascended(steps: Transition) -> Any:
        grads, _ = algorithm.segment_gradient(networks, learner.encoder, soft_rewards(steps, temperature))
        return jax.tree.map(jnp.negative, grads.policy.params)

    return expectation(ascended, *episodes(mdp, softmax(theta)))["Dense_0"]["kernel"]


@pytest.mark.parametrize("gae_lambda", [1.0, 0.5, 0.0])
def test_a2c_follows_the_gradient_with_any_trace_if_its_values_are_right(gae_lambda: float) -> None:
    mdp = layered_mdp(1, discount=1.0)
    theta = preferences(mdp, 1)
    policy = softmax(theta)
    exact = exact_mdp.policy_gradient(mdp, policy, softmax_scores(policy))
    value = exact_mdp.state_values(mdp, policy)
    ours = a2c_gradient(mdp, theta, value, gae_lambda=gae_lambda)
    np.testing.assert_allclose(ours, exact, atol=1e-5)
    # With wrong values only whole returns are unbiased: what they are compared with has no part in the expectation.
    ours = a2c_gradient(mdp, theta, np.arange(6.0), gae_lambda=gae_lambda)
    assert (np.abs(ours - exact).max() < 1e-5) == (gae_lambda == 1.0)


def test_maximum_entropy_is_the_entropy_of_the_whole_return_and_a_bonus_is_not() -> None:
    """Rewards r - alpha log pi give the gradient of E[sum_t r + alpha H]; a bonus that of H in each state visited."""
    alpha = 0.7
    mdp = layered_mdp(2, discount=1.0)
    theta = preferences(mdp, 2)
    theta[2:4] = [[0.0, 0.0], [2.0, -2.0]]  # the second layer: entropy is to be had in one state, and not in the other

    def soft_objective(theta: np.ndarray) -> float:
        policy = softmax(theta)
        entropy = -(policy * np.log(policy)).sum(-1)
        return exact_mdp.objective(mdp, policy) + alpha * float(exact_mdp.occupancy(mdp, policy) @ entropy)

    exact = exact_mdp.finite_differences(soft_objective, theta)
    value = np.zeros(len(theta))
    np.testing.assert_allclose(a2c_gradient(mdp, theta, value, temperature=alpha), exact, atol=1e-5)
    bonus = a2c_gradient(mdp, theta, value, entropy_coefficient=alpha)
    np.testing.assert_allclose(bonus[-2:], exact[-2:], atol=1e-5)  # in the last states nothing follows
    assert np.abs(bonus - exact)[:-2].max() > 1e-3


# A Gaussian policy, whose expectations are integrals: Gauss and Hermite's nodes are exact enough for ours.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
BEST = np.array([0.5, -0.3, 0.8])  # action, in states 0 (the first), 1 and 2; the reward is less its squared distance
PRIZE = np.array([0.0, 1.0, -0.5])  # for being there


def gaussian_objective(parameters: np.ndarray) -> float:
    """J of a policy with means parameters[:3] in the three states and a log standard deviation parameters[3].

    The first action a leads to state 1 with probability 1 / (1 + exp(-a)), else to 2; the second ends the episode.
    """
    mean, std = parameters[:3], np.exp(parameters[3])
    expected = PRIZE - (mean - BEST) ** 2 - std**2  # of one reward, in each state
    to_one = WEIGHTS @ (1 / (1 + np.exp(-(mean[0] + std * NODES))))
    return float(expected[0] + to_one * expected[1] + (1 - to_one) * expected[2])


@pytest.mark.parametrize("learned_std", [True, False])
def test_a_linear_gaussian_policy_follows_the_gradient(learned_std: bool) -> None:
    parameters = np.array([0.1, 0.4, -0.2, -0.6])
    mean, std = parameters[:3], np.exp(parameters[3])
    first, second = (x.ravel() for x in np.meshgrid(mean[0] + std * NODES, NODES, indexing="ij"))
    both = np.outer(WEIGHTS, WEIGHTS).ravel()
    parts = []
    for state, chance in ((1, 1 / (1 + np.exp(-first))), (2, 1 / (1 + np.exp(first)))):
        actions = np.stack([first, mean[state] + std * second], axis=1)
        states = np.broadcast_to([0, state], actions.shape)
        parts.append((both * chance, states, actions, PRIZE[states] - (actions - BEST[states]) ** 2))
    probability, states, actions, rewards = map(np.concatenate, zip(*parts, strict=True))
    assert probability.sum() == pytest.approx(1.0)
    column = lambda x: jnp.asarray(x)[..., None]  # noqa: E731
    steps = Transition(
        column(states),
        column(actions.astype(np.float32))[..., None],
        column(rewards.astype(np.float32)),
        column(np.roll(states, -1, axis=1)),
        column(np.broadcast_to([False, True], states.shape)),
        column(np.zeros(states.shape, bool)),
        {},
    )
    algorithm = A2C(discount=1.0, num_steps=2, hidden_sizes=(), initial_log_std=-0.6, learned_std=learned_std)
    where = Spec(spaces.Discrete(3), spaces.Box(-1, 1, (1,), np.float32), 1)
    learner = algorithm.init(jax.random.key(0), where)
    networks = learner.networks._replace(policy=tabular(learner.networks.policy, mean))

    def ascended(steps: Transition) -> Any:
        grads, _ = algorithm.segment_gradient(networks, learner.encoder, steps)
        return jax.tree.map(jnp.negative, grads.policy.params)

    ours = expectation(ascended, jnp.asarray(probability), steps)
    exact = exact_mdp.finite_differences(gaussian_objective, parameters)
    np.testing.assert_allclose(ours["Dense_0"]["kernel"][:, 0], exact[:3], atol=1e-4)
    np.testing.assert_allclose(ours["log_std"], [exact[3] if learned_std else 0.0], atol=1e-4)
