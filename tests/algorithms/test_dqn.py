"""Targets against a batch worked by hand, the target's copies, exploration, and dynamic programming's values."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus import training
from parnassus.algorithms.dqn import DQN, Learner
from parnassus.collect import ScanCollector
from parnassus.envs.mdp import FiniteMDP
from parnassus.off_policy import Experience
from parnassus.replay import Prioritized
from parnassus.schedules import Linear
from parnassus.types import BadInput, Spec

SPEC = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4), 2)
TINY = DQN(minibatch_size=32, replay_size=128, learning_starts=100, hidden_sizes=(16,), learning_rate=1e-3)
ONES = jnp.ones(32)


def batch() -> Experience:
    keys = jax.random.split(jax.random.key(7), 4)
    o, next_o = jax.random.normal(keys[0], (32, 3)), jax.random.normal(keys[1], (32, 3))
    action = jax.random.randint(keys[2], (32,), 0, 4)
    return Experience(o, action, 3 * jax.random.normal(keys[3], (32,)), next_o, 0.9 * (jnp.arange(32) % 4 > 0))


def learner(algorithm: DQN = TINY) -> Learner:
    """One whose target is another network."""
    fresh = algorithm.init(jax.random.key(0), SPEC)
    return fresh._replace(target=algorithm.init(jax.random.key(1), SPEC).q)


@pytest.mark.parametrize("double", [False, True])
def test_the_target(double: bool) -> None:
    """r where the step was terminal; which network chooses the action is what `double` changes."""
    algorithm = dataclasses.replace(TINY, double=double)
    start, data = learner(algorithm), batch()
    _, error, metrics = algorithm.update(start, data, ONES)
    target_values, online_values = np.asarray(start.target(data.next_observation)), start.q(data.next_observation)
    chosen = np.argmax(online_values if double else target_values, axis=1)
    rows = np.arange(32)
    y = np.asarray(data.reward) + np.asarray(data.discount) * target_values[rows, chosen]
    np.testing.assert_allclose(y[::4], data.reward[::4])  # terminal
    wanted = y - np.asarray(start.q(data.observation))[rows, data.action]
    np.testing.assert_allclose(error, wanted, rtol=1e-4, atol=1e-5)
    assert metrics["loss/value"] == pytest.approx((wanted**2).mean(), rel=1e-4)
    assert (np.argmax(online_values, axis=1) != np.argmax(target_values, axis=1)).any()


def test_huber_is_linear_beyond_one() -> None:
    start, data = learner(), batch()
    _, error, metrics = dataclasses.replace(TINY, loss="huber").update(start, data, ONES)
    size = np.abs(error)
    wanted = np.where(size < 1, size**2 / 2, size - 0.5)
    assert (size > 1).any() and (size < 1).any()
    assert metrics["loss/value"] == pytest.approx(wanted.mean(), rel=1e-4)


def test_weights_are_of_the_losses() -> None:
    start, data = learner(), batch()
    weight = jnp.linspace(0.0, 1.0, 32)
    _, error, metrics = TINY.update(start, data, weight)
    assert metrics["loss/value"] == pytest.approx(float((weight * error**2).mean()), rel=1e-4)


def test_dueling_advantages_have_no_mean() -> None:
    """Adding a number to every advantage changes nothing, adding it to the value changes Q by it."""
    algorithm = dataclasses.replace(TINY, dueling=True)
    q, observation = learner(algorithm).q, batch().observation
    value, advantage = q.params["Dense_1"], q.params["Dense_0"]
    assert (value["bias"].shape, advantage["bias"].shape) == ((1,), (4,))
    params = {**q.params, "Dense_0": {**advantage, "bias": advantage["bias"] + 3.0}}
    np.testing.assert_allclose(dataclasses.replace(q, params=params)(observation), q(observation), atol=1e-5)
    params = {**q.params, "Dense_1": {**value, "bias": value["bias"] + 3.0}}
    np.testing.assert_allclose(dataclasses.replace(q, params=params)(observation), q(observation) + 3.0, atol=1e-5)


def test_the_target_is_copied_every_so_many_gradient_steps() -> None:
    algorithm = dataclasses.replace(TINY, target_period=3)
    now = algorithm.init(jax.random.key(0), SPEC)
    targets = [now.target]
    for _ in range(6):
        now, _, _ = algorithm.update(now, batch(), ONES)
        targets.append(now.target)
    same = [
        all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), old, new)))
        for old, new in itertools.pairwise(targets)
    ]
    assert same == [True, True, False, True, True, False]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), now.q, now.target))


def test_actions_are_random_at_first_and_epsilon_greedy_later() -> None:
    algorithm = dataclasses.replace(TINY, epsilon=Linear(0.8, 0.2, 0.5), learning_starts=100)
    fresh = algorithm.init(jax.random.key(0), SPEC)
    observation = jnp.ones((8000, 3))
    best = int(fresh.q(observation[:1]).argmax())

    def share_of_best(steps: int) -> float:
        progress = dataclasses.replace(fresh.progress, steps=jnp.int32(steps), planned=jnp.int32(1000))
        behavior = algorithm.behavior(fresh._replace(progress=progress))
        action, _, _ = algorithm.act(behavior, (), observation, jax.random.key(steps), True)
        return float((action == best).mean())

    assert share_of_best(99) == pytest.approx(1 / 4, abs=0.02)
    assert share_of_best(250) == pytest.approx(1 - 0.5 * 3 / 4, abs=0.02)  # epsilon: half way from 0.8 to 0.2
    assert share_of_best(900) == pytest.approx(1 - 0.2 * 3 / 4, abs=0.02)
    action, _, _ = algorithm.act(algorithm.behavior(fresh), (), observation, jax.random.key(0), False)
    assert (action == best).all()


def test_prioritised_sampling_learns_what_it_draws() -> None:
    """After a gradient step the priorities of the drawn rows are their errors', of the others the first one."""
    algorithm = dataclasses.replace(TINY, sampling=Prioritized(exponent=0.5, epsilon=0.01))
    start = learner(algorithm)
    rows = start.replay.next_rows(32)
    data = batch()
    replay = start.replay.add(jax.tree.map(lambda x: x[:, None], data))
    start = start._replace(priorities=algorithm.sampling.added(start.priorities, rows))
    after, _ = algorithm.gradient_step(start, replay, jax.random.key(3))
    _, error, _ = algorithm.update(start, data, ONES)  # of all rows
    leaves = np.asarray(after.priorities.sums)[128 : 128 + 32]
    wanted = np.sqrt(np.abs(error) + 0.01)
    drawn = leaves != 1.0
    assert drawn.sum() == 32  # one from each share of equal priorities: every row
    np.testing.assert_allclose(leaves, wanted, rtol=1e-4)


def test_other_action_spaces_are_refused() -> None:
    with pytest.raises(BadInput, match="DQN needs a Discrete action space, not Box"):
        TINY.init(jax.random.key(0), Spec(SPEC.observation_space, spaces.Box(-1, 1, (2,)), 1))


def test_on_a_finite_mdp_it_finds_the_values_of_dynamic_programming() -> None:
    """A network without hidden layers on one-hot states is a table, which only sampling keeps from Q*."""
    rng, discount = np.random.default_rng(3), 0.8
    transition = rng.dirichlet(np.full(4, 0.5), (4, 2))
    reward = rng.normal(size=(4, 2, 4))
    exact = np.zeros((4, 2))
    for _ in range(200):
        exact = (transition * (reward + discount * exact.max(-1))).sum(-1)
    algorithm = DQN(
        learning_rate=Linear(3e-2, 0.0),
        num_steps=8,
        num_updates=8,
        minibatch_size=128,
        replay_size=20_000,
        target_period=50,
        discount=discount,
        epsilon=1.0,
        hidden_sizes=(),
    )
    collector = ScanCollector(FiniteMDP.from_dense(transition, reward, np.full(4, 0.25), max_steps=10), 4)
    state = training.init(algorithm, collector, jax.random.key(0), 40_000)
    *_, chunk = training.train(algorithm, collector, state, 40_000)
    found = chunk.state.learner.q(jnp.eye(4))
    np.testing.assert_allclose(found, exact, atol=0.08)
    assert (np.argmax(found, 1) == np.argmax(exact, 1)).all()
