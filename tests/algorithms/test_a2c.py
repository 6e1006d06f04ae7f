"""The gradient of a segment against the paper's backward loop; the optimisers; shared and separate networks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.algorithms.a2c import A2C
from parnassus.schedules import Linear, Progress
from parnassus.types import Spec, Transition
from tests import soft_mdp

N, T, GAMMA, BETA, C = 3, 5, 0.9, 0.02, 0.4
ACTIONS = {"discrete": spaces.Discrete(3), "box": spaces.Box(-1, 1, (2,), np.float32)}


def spec(action: str = "discrete") -> Spec:
    return Spec(spaces.Box(-1, 1, (2,), np.float32), ACTIONS[action], N)


def segment(action: str = "discrete") -> Transition:
    """Episodes that end inside (then the successor is observed nowhere else), at the end, and not at all."""
    keys = jax.random.split(jax.random.key(1), 4)
    observation, next_observation = (jax.random.normal(key, (T, N, 2)) for key in keys[:2])
    if action == "discrete":
        actions = jax.random.randint(keys[2], (T, N), 0, 3)
    else:
        actions = jax.random.normal(keys[2], (T, N, 2))
    terminated, truncated = np.zeros((2, T, N), bool)
    terminated[1, 0] = terminated[4, 1] = truncated[2, 1] = True
    reward = jax.random.normal(keys[3], (T, N))
    goes_on = jnp.array(~(terminated | truncated)[:-1, :, None])
    following = jnp.where(goes_on, observation[1:], next_observation[:-1])
    next_observation = next_observation.at[:-1].set(following)
    extras = {"log_prob": jnp.zeros((T, N))}
    return Transition(
        observation, actions, reward, next_observation, jnp.array(terminated), jnp.array(truncated), extras
    )


@pytest.mark.parametrize("action", list(ACTIONS))
@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_is_that_of_the_papers_backward_loop(shared: bool, action: str) -> None:
    algorithm = A2C(
        discount=GAMMA, entropy_coefficient=BETA, value_coefficient=C, hidden_sizes=(4,), shared_network=shared
    )
    learner, steps = algorithm.init(jax.random.key(0), spec(action)), segment(action)
    networks = learner.networks
    total = jax.tree.map(jnp.zeros_like, networks)
    for n in range(N):
        returns: Any = None
        for t in reversed(range(T)):
            here = jax.tree.map(lambda x, t=t, n=n: x[t, n], steps)
            if here.terminated:
                returns = 0.0
            elif here.truncated or t == T - 1:
                returns = float(networks.value(here.next_observation))
            returns = float(here.reward) + GAMMA * returns
            advantage = returns - float(networks.value(here.observation))

            def ascended(networks: Any, here: Any = here, r: Any = returns, a: Any = advantage) -> Any:
                policy, value = networks(here.observation)
                error = r - value
                return a * policy.log_prob(here.action) + BETA * policy.entropy() - C * error**2

            total = jax.tree.map(jnp.add, total, jax.grad(ascended)(networks))
    grads, _ = algorithm.segment_gradient(networks, learner.encoder, steps)
    for ours, theirs in zip(*map(jax.tree.leaves, (grads, total)), strict=True):
        np.testing.assert_allclose(ours, -theirs / (N * T), rtol=1e-4, atol=1e-6)


def test_a_shorter_trace_turns_the_advantage_into_the_one_step_error() -> None:
    algorithm = A2C(discount=GAMMA, gae_lambda=0.0, hidden_sizes=(4,))
    learner, steps = algorithm.init(jax.random.key(0), spec()), segment()
    value = learner.networks.value
    target = steps.reward + GAMMA * jnp.where(steps.terminated, 0.0, value(steps.next_observation))
    _, metrics = algorithm.segment_gradient(learner.networks, learner.encoder, steps)
    assert metrics["loss/value"] == pytest.approx(float(((target - value(steps.observation)) ** 2).mean()), rel=1e-5)


def test_rmsprop_divides_by_the_root_of_a_mean_square_that_starts_at_one() -> None:
    algorithm = A2C(learning_rate=0.1, max_grad_norm=100.0, optimizer_epsilon=0.5)
    rule = algorithm.transformation(Progress.start())
    first, second = jnp.array([3.0, -4.0]), jnp.array([1.0, 2.0])
    state = rule.init(first)
    update, state = rule.update(first, state)
    square = 0.99 + 0.01 * first**2
    np.testing.assert_allclose(update, -0.1 * first / jnp.sqrt(square + 0.5), rtol=1e-5)
    update, _ = rule.update(second, state)
    np.testing.assert_allclose(update, -0.1 * second / jnp.sqrt(0.99 * square + 0.01 * second**2 + 0.5), rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_gradients_are_clipped_to_a_global_norm(optimizer: Any) -> None:
    algorithm = A2C(learning_rate=1.0, max_grad_norm=0.5, optimizer=optimizer)
    rule = algorithm.transformation(Progress.start())
    grads = (jnp.array([30.0]), jnp.array([-40.0]))
    clipped = (jnp.array([0.3]), jnp.array([-0.4]))
    ours, theirs = (rule.update(x, rule.init(x))[0] for x in (grads, clipped))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_two_heads_on_one_torso_are_a_policy_and_a_value_function() -> None:
    algorithm = A2C(hidden_sizes=(4,), shared_network=True, initial_log_std=-1.0)
    networks = algorithm.init(jax.random.key(0), spec("box")).networks
    observation = jax.random.normal(jax.random.key(2), (6, 2))
    policy, value = networks(observation)
    np.testing.assert_array_equal(networks.value(observation), value)
    for a, b in zip(*map(jax.tree.leaves, (networks.policy(observation), policy)), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(networks.policy.params["log_std"], [-1.0, -1.0])
    separate = dataclasses.replace(algorithm, shared_network=False).init(jax.random.key(0), spec("box")).networks
    sizes = [sum(x.size for x in jax.tree.leaves(n)) for n in (networks, separate)]
    assert sizes[1] - sizes[0] == 2 * 4 + 4  # the second torso


def test_a_linear_policy_and_value_function_share_nothing_but_the_features() -> None:
    algorithm = A2C(hidden_sizes=(), shared_network=True)
    networks = algorithm.init(jax.random.key(0), spec()).networks
    assert sum(x.size for x in jax.tree.leaves(networks)) == (2 + 1) * 3 + (2 + 1)
    assert networks.value(jnp.ones(2)).shape == ()


def test_the_step_decreases_the_loss_that_it_was_taken_for() -> None:
    algorithm = A2C(learning_rate=1e-3, hidden_sizes=(8,), max_grad_norm=10.0)
    learner, steps = algorithm.init(jax.random.key(0), spec()), segment()
    after, before = algorithm.learn(learner, steps, jax.random.key(2))
    _, metrics = algorithm.segment_gradient(after.networks, after.encoder, steps)
    assert metrics["loss/value"] < before["loss/value"]
    assert after.progress.steps == N * T


@pytest.mark.parametrize(("temperature", "bonus"), [(soft_mdp.ALPHA, 0.0), (0.0, soft_mdp.ALPHA)])
def test_entropy_in_the_return_is_not_an_entropy_bonus(temperature: float, bonus: float) -> None:
    """On a table of three states: softmax(Q_soft / alpha) with the one, softmax(Q / alpha) with the other."""
    algorithm = A2C(
        learning_rate=Linear(3e-2, 0.0),
        num_steps=8,
        discount=soft_mdp.GAMMA,
        gae_lambda=0.9,
        temperature=temperature,
        entropy_coefficient=bonus,
        optimizer="adam",
        hidden_sizes=(),
    )
    learner = soft_mdp.learn(algorithm, 400_000)
    soft_mdp.check(learner.networks.policy, learner.networks.value, learner.encoder, temperature)
