"""AlphaZero: what it stores of a search, its targets under time limits, its two losses, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.algorithms.alphazero import AlphaZero, Example
from parnassus.collect import ScanCollector
from parnassus.envs.classic import CartPole, Pendulum
from parnassus.planning.mcts import PUCT, Gumbel
from parnassus.simulator import Simulator
from parnassus.types import BadInput, Spec

SIMULATOR = Simulator(CartPole(max_steps=5))
TINY = AlphaZero(
    search=PUCT(num_simulations=4),
    num_steps=8,
    num_updates=1,
    minibatch_size=8,
    replay_size=32,
    learning_starts=1_000,
    discount=0.9,
    num_samples=3,
    hidden_sizes=(8,),
    simulator=SIMULATOR,
)


def test_rewards_to_go_are_bootstrapped_where_an_episode_is_cut() -> None:
    """CartPole cut after five steps of reward 1, by the value of the true successor; so is the trajectory's end."""
    collector = ScanCollector(SIMULATOR, 2)
    learner = TINY.init(jax.random.key(0), collector.spec)
    actor = collector.init(TINY, jax.random.key(1))
    _, steps = jax.jit(collector.collect)(TINY, TINY.behavior(learner), actor, jax.random.key(2))
    assert steps.truncated[4].all() and not steps.terminated.any()
    after, _ = jax.jit(TINY.learn)(learner, steps, jax.random.key(3))
    stored = jax.tree.map(lambda x: x[:16].reshape(8, 2, *x.shape[1:]), after.replay.storage)
    value = np.asarray(learner.value(steps.next_observation["observation"]))
    for t, end in ((0, 4), (3, 4), (4, 4), (5, 7), (7, 7)):
        left = end - t + 1
        wanted = sum(0.9**k for k in range(left)) + 0.9**left * value[end]
        np.testing.assert_allclose(stored.value[t], wanted, rtol=1e-5)
    np.testing.assert_array_equal(stored.observation, steps.observation["observation"])
    np.testing.assert_array_equal(stored.weights, steps.extras["weights"])
    np.testing.assert_allclose(stored.weights.sum(-1), 1.0, rtol=1e-5)


def test_the_losses_by_hand() -> None:
    algorithm = dataclasses.replace(TINY, weight_decay=0.0)
    learner = algorithm.init(jax.random.key(0), ScanCollector(SIMULATOR, 2).spec)
    o = jax.random.normal(jax.random.key(1), (32, 4))
    weights = jax.nn.softmax(jax.random.normal(jax.random.key(2), (32, 2)))
    z = jax.random.normal(jax.random.key(4), (32,))
    actions = jnp.tile(jnp.arange(2, dtype=jnp.int32), (32, 1))
    examples = jax.tree.map(lambda x: x[:, None], Example(o, actions, weights, z))
    learner = learner._replace(replay=learner.replay.add(examples))
    rows = learner.replay.draw(jax.random.key(5), 8)
    after, metrics = algorithm.gradient_step(learner, learner.replay, jax.random.key(5))
    log_prob = jax.nn.log_softmax(learner.policy(o).logits)
    assert metrics["loss/policy"] == pytest.approx(float(-(weights * log_prob).sum(-1)[rows].mean()), rel=1e-5)
    assert metrics["loss/value"] == pytest.approx(float(((z - learner.value(o)) ** 2)[rows].mean()), rel=1e-5)
    _, improved = algorithm.gradient_step(after, learner.replay, jax.random.key(5))
    assert improved["loss/policy"] < metrics["loss/policy"] and improved["loss/value"] < metrics["loss/value"]


@pytest.mark.parametrize("search", [PUCT(num_simulations=4), Gumbel(num_simulations=4)], ids=["puct", "gumbel"])
def test_real_actions(search: PUCT | Gumbel) -> None:
    """Chosen among those that the policy drew at the root, which are kept with their weights."""
    simulator = Simulator(Pendulum())
    algorithm = dataclasses.replace(TINY, search=search, simulator=simulator)
    learner = algorithm.init(jax.random.key(0), Spec(simulator.observation_space, simulator.action_space, 2))
    _, observation = jax.vmap(simulator.reset)(jax.random.split(jax.random.key(1), 2))
    act = jax.jit(lambda key: algorithm.act(algorithm.behavior(learner), (), observation, key, True))
    action, memory, extras = act(jax.random.key(2))
    assert action.shape == (2, 1) and extras["actions"].shape == (2, 3, 1) and memory == ()
    assert (action[:, None] == extras["actions"]).any(1).all() and float(jnp.abs(action).max()) <= 1.0


def test_what_it_cannot_plan_in() -> None:
    spec = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.MultiDiscrete([2, 2]), 2)
    with pytest.raises(BadInput, match="AlphaZero plans in the environment itself, which must be a JAX environment"):
        AlphaZero().init(jax.random.key(0), spec)
    with pytest.raises(BadInput, match="tree search needs Discrete or Box actions, not MultiDiscrete"):
        TINY.init(jax.random.key(0), spec)
