"""The policies and estimates that the on-policy methods share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from gymnasium import spaces

from parnassus import actor_critic
from parnassus.actor_critic import Behavior, create_policy, create_value, explained_variance, random_order
from parnassus.distributions import Categorical, DiagonalGaussian
from parnassus.encoding import Encoder
from parnassus.networks import Network, Torso
from parnassus.normalization import RewardScaler
from parnassus.presets import algorithm_class
from parnassus.returns import generalized_advantages
from parnassus.types import Spec, Transition
from tests.soft_mdp import ALPHA, GAMMA, NEXT, PAYS, fixed_point, solve

BOX = spaces.Box(-1, 1, (3,), np.float32)


class Learner(NamedTuple):
    value: Network
    encoder: Encoder
    rewards: RewardScaler | None


def a_policy(action_space: Any, sizes: tuple[int, ...] = (), learned_std: bool = True) -> Behavior:
    encoder = Encoder.create(BOX)
    spec = Spec(BOX, action_space, 1)
    torso = Torso(encoder.are_images, sizes, "tanh")
    return Behavior(create_policy(jax.random.key(0), spec, encoder, torso, -0.5, learned_std), encoder)


@pytest.mark.parametrize("action_space", [spaces.Discrete(4), spaces.Box(-2, 2, (2,), np.float32)])
def test_without_hidden_layers_the_policy_is_linear_in_the_observation(action_space: Any) -> None:
    """Linear softmax and linear Gaussian: logits, or means, are an affine function of the features."""
    policy = a_policy(action_space).policy
    layer = jax.tree.map(np.asarray, policy.params["Dense_0"])
    observation = jax.random.normal(jax.random.key(1), (5, 3))
    expected = np.asarray(observation) @ layer["kernel"] + layer["bias"]
    assert np.abs(expected).min() > 0
    if isinstance(action_space, spaces.Box):
        np.testing.assert_allclose(policy(observation).mode(), expected, rtol=1e-5)
    else:
        ours = np.stack([policy(observation).log_prob(jnp.full(5, action)) for action in range(4)], axis=1)
        np.testing.assert_allclose(ours, jax.nn.log_softmax(expected), rtol=1e-5)


class Quadratic(nn.Module):
    """phi(o) = (o, o^2): features without parameters; a critic of real actions reads them too."""

    def __call__(self, observation: Any, *action: Any) -> Any:
        return jnp.concatenate([observation, observation**2, *action], axis=-1)


ON_POLICY = ["reinforce", "vpg", "q-actor-critic", "td-actor-critic", "advantage-actor-critic", "a2c", "a3c"]
ON_POLICY += ["npg", "trpo", "acktr", "ppo"]


@pytest.mark.parametrize("action_space", [spaces.Discrete(4), spaces.Box(-2, 2, (2,), np.float32)])
@pytest.mark.parametrize("name", ON_POLICY)
def test_every_method_takes_a_policy_that_is_linear_in_features_of_ones_own(name: str, action_space: Any) -> None:
    """theta^T phi(o), for logits or means; a standard deviation that is fixed."""
    algorithm = algorithm_class(name)(initial_log_std=-0.5, learned_std=False, network=Quadratic())
    policy = algorithm.behavior(algorithm.init(jax.random.key(0), Spec(BOX, action_space, 8))).policy
    observation = jax.random.normal(jax.random.key(1), (5, 3))
    layer = policy.params["Dense_0"]
    expected = Quadratic()(observation) @ layer["kernel"] + layer["bias"][None]
    distribution = policy(observation)
    if isinstance(action_space, spaces.Box):
        expected = DiagonalGaussian(expected, jnp.full_like(expected, -0.5))
    else:
        expected = Categorical(expected)
    np.testing.assert_allclose(distribution.kl(expected), 0.0, atol=1e-6)
    np.testing.assert_allclose(distribution.entropy(), expected.entropy(), rtol=1e-5)
    log_std = {"log_std"} if isinstance(action_space, spaces.Box) else set()
    assert set(policy.params) == {"Dense_0", *log_std}


@pytest.mark.parametrize("learned", [True, False])
def test_a_gaussians_spread_starts_where_asked_and_may_stay_there(learned: bool) -> None:
    policy = a_policy(spaces.Box(-2, 2, (2,), np.float32), (8,), learned).policy
    np.testing.assert_array_equal(policy.params["log_std"], [-0.5, -0.5])
    observation, action = jnp.ones((1, 3)), jnp.full((1, 2), 3.0)
    grads = jax.grad(lambda p: p(observation).log_prob(action).sum())(policy)
    assert bool((grads.params["log_std"] != 0).all()) == learned
    assert np.abs(grads.params["Dense_0"]["bias"]).min() > 0


def test_acting_draws_with_the_log_probability_of_the_draw_or_gives_the_mode() -> None:
    behavior = a_policy(spaces.Discrete(4), (8,))
    observation = jax.random.normal(jax.random.key(1), (6, 3))
    action, extras = actor_critic.act(behavior, observation, jax.random.key(2), True)
    distribution = behavior.policy(observation)
    np.testing.assert_allclose(extras["log_prob"], distribution.log_prob(action), rtol=1e-6)
    best, nothing = actor_critic.act(behavior, observation, jax.random.key(2), False)
    np.testing.assert_array_equal(best, distribution.mode())
    assert nothing == {}


def trajectory(terminated: bool) -> Transition:
    """Two steps in one environment; the first ends its episode."""
    flags = jnp.array([[True], [False]])
    return Transition(
        jnp.array([[[1.0, 0, 0]], [[0, 1.0, 0]]]),
        jnp.array([[0], [1]]),
        jnp.array([[1.0], [2.0]]),
        jnp.array([[[0, 0, 1.0]], [[1.0, 0, 0]]]),
        flags if terminated else ~(flags | True),
        ~(flags | True) if terminated else flags,
        {"log_prob": jnp.array([[-0.1], [-0.2]])},
    )


@pytest.mark.parametrize("terminated", [True, False])
def test_estimates_bootstrap_from_the_true_successor(terminated: bool) -> None:
    encoder = Encoder.create(BOX)
    value = create_value(
        jax.random.key(0), Spec(BOX, spaces.Discrete(2), 1), encoder, Torso(encoder.are_images, (), "tanh")
    )
    learner = Learner(value, encoder, None)
    given = trajectory(terminated)
    batch = actor_critic.estimate(learner, given, given.reward, 0.5, 0.9)
    v = lambda *o: float(value(jnp.array(o, jnp.float32)))  # noqa: E731
    successor = 0.0 if terminated else v(0, 0, 1)
    expected = [1.0 + 0.5 * successor - v(1, 0, 0), 2.0 + 0.5 * v(1, 0, 0) - v(0, 1, 0)]
    np.testing.assert_allclose(batch.advantage, expected, rtol=1e-5)
    np.testing.assert_allclose(batch.target, np.add(expected, [v(1, 0, 0), v(0, 1, 0)]), rtol=1e-5)
    assert batch.observation.shape == (2, 3)
    np.testing.assert_allclose(batch.log_prob, [-0.1, -0.2])


def test_rewards_are_scaled_by_statistics_that_have_seen_them() -> None:
    given = trajectory(True)
    unchanged, nothing = actor_critic.scale_rewards(Learner(None, None, None), given, 0.5)  # type: ignore[arg-type]
    assert nothing is None
    np.testing.assert_array_equal(unchanged, given.reward)
    learner = Learner(None, None, RewardScaler.zeros(1))  # type: ignore[arg-type]
    scaled, scaler = actor_critic.scale_rewards(learner, given, 0.5)
    assert scaler is not None
    np.testing.assert_allclose(scaled, given.reward / np.std([1.0, 2.0]), rtol=1e-5)  # the returns are 1 and, anew, 2


def test_explained_variance_is_one_for_the_target_and_zero_for_a_constant() -> None:
    target = jnp.array([1.0, 2.0, 4.0])
    assert explained_variance(target, target) == pytest.approx(1.0)
    assert explained_variance(jnp.zeros(3), target) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("size", [1, 2, 7, 4096, 2**16, 2**16 + 1])
def test_a_random_order_has_every_index_once(size: int) -> None:
    order = random_order(jax.random.key(0), size)
    assert np.array_equal(np.sort(order), np.arange(size))


def test_every_random_order_is_equally_likely() -> None:
    """All 24 orders of four indices, by Pearson's chi-squared test."""
    keys = jax.random.split(jax.random.key(1), 24_000)
    orders = np.asarray(jax.vmap(lambda key: random_order(key, 4))(keys))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert counts.size == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 49.7  # the 99.9% quantile with 23 degrees of freedom


def expected_gradient(logits: Any, temperature: float, bonus: float) -> np.ndarray:
    """The gradient in the logits that an actor-critic with exact values expects in each state, by the library's parts.

    E_a[A(s, a) grad log pi(a | s)] + bonus grad H(pi(. | s)), the advantages of one-step transitions (lambda = 0).
    """
    policy = np.asarray(jax.nn.softmax(logits), np.float64)
    _, v = solve(policy, temperature)
    state, action = (x.reshape(1, 6) for x in np.indices((3, 2)))
    never = jnp.zeros((1, 6), bool)
    given = Transition(
        jnp.asarray(state),
        jnp.asarray(action),
        jnp.asarray(PAYS[state, action], jnp.float32),
        jnp.asarray(NEXT[state, action]),
        never,
        never,
        {"log_prob": jnp.asarray(np.log(policy[state, action]), jnp.float32)},
    )
    reward = actor_critic.soft_rewards(given, temperature).reward
    values = [jnp.asarray(v[x], jnp.float32) for x in (state, NEXT[state, action])]
    advantage = generalized_advantages(reward, *values, never, never, GAMMA, 0.0)[0]
    probability = jnp.asarray(policy[state, action][0], jnp.float32)

    def objective(logits: Any) -> Any:
        distribution = Categorical(logits[state[0]])
        gain = probability * advantage * distribution.log_prob(jnp.asarray(action[0]))
        return gain.sum() + bonus * Categorical(logits).entropy().sum()

    return np.asarray(jax.grad(objective)(jnp.asarray(logits, jnp.float32)))


def test_the_soft_optimal_policy_is_the_fixed_point_of_maximum_entropy_and_not_of_the_bonus() -> None:
    """softmax(Q_soft / alpha) is where the entropy inside the return leaves the policy alone, and only there; the
    bonus of the same size stops at softmax(Q / alpha), whose Q knows nothing of the entropy to come."""
    soft, myopic = fixed_point(ALPHA), fixed_point(0.0)
    assert soft[0, 1] > 0.55 > 0.45 > myopic[0, 1]  # it seeks the wide state for its freedom
    np.testing.assert_allclose(expected_gradient(np.log(soft), ALPHA, 0.0), 0.0, atol=1e-5)
    np.testing.assert_allclose(expected_gradient(np.log(myopic), 0.0, ALPHA), 0.0, atol=1e-5)
    assert np.abs(expected_gradient(np.log(soft), 0.0, ALPHA)).max() > 0.01
    assert np.abs(expected_gradient(np.log(myopic), ALPHA, 0.0)).max() > 0.01


def test_no_policy_has_a_larger_soft_return_than_the_soft_optimal_one() -> None:
    best = solve(fixed_point(ALPHA), ALPHA)[1]
    rng = np.random.default_rng(0)
    for policy in [fixed_point(0.0), *rng.dirichlet([1, 1], (100, 3))]:
        assert (solve(policy, ALPHA)[1] <= best + 1e-9).all()


def test_the_soft_gradient_is_that_of_the_soft_return() -> None:
    """Away from any fixed point, state by state: d (sum_a pi(a) (Q(s, a) - alpha log pi(a))) / d logits, Q held."""
    logits = np.array([[0.3, -0.4], [-0.2, 0.6], [0.1, 0.5]])
    q, _ = solve(np.asarray(jax.nn.softmax(logits), np.float64), ALPHA)

    def soft_value(logits: Any) -> Any:
        log_policy = jax.nn.log_softmax(logits)
        return (jnp.exp(log_policy) * (jnp.asarray(q, jnp.float32) - ALPHA * log_policy)).sum()

    expected = jax.grad(soft_value)(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(expected_gradient(logits, ALPHA, 0.0), expected, atol=1e-5)


def test_a_soft_optimal_policy_has_no_advantage_to_gain_by_any_action() -> None:
    """Which is why the log-probability of the action is in the reward, and not the entropy."""
    policy = fixed_point(ALPHA)
    q, v = solve(policy, ALPHA)
    np.testing.assert_allclose(q - ALPHA * np.log(policy), np.repeat(v[:, None], 2, 1), atol=1e-9)


def test_without_a_temperature_rewards_are_rewards() -> None:
    given = trajectory(True)
    np.testing.assert_array_equal(actor_critic.soft_rewards(given, 0.0).reward, given.reward)
    np.testing.assert_allclose(actor_critic.soft_rewards(given, 2.0).reward, [[1.2], [2.4]], rtol=1e-6)
