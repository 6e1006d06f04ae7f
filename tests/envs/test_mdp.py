"""Finite MDPs: equal to the toy-text tables, sampled as they say, checked when built."""

from collections import Counter

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.envs.mdp import FiniteMDP, MDPState
from parnassus.types import BadInput, Env

IDS = ["FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "CliffWalkingSlippery-v1", "Taxi-v4"]


@pytest.mark.parametrize("name", IDS)
def test_tables_equal_gymnasiums(name):
    """Outcome by outcome: for each (s, a), the same probability of each (next state, reward, terminated)."""
    theirs = gymnasium.make(name, disable_env_checker=True)
    mdp = FiniteMDP.from_gymnasium(name)
    assert isinstance(mdp, Env)
    assert mdp.observation_space == theirs.observation_space
    assert mdp.action_space == theirs.action_space
    assert mdp.max_steps == theirs.spec.max_episode_steps
    np.testing.assert_allclose(mdp.start, theirs.unwrapped.initial_state_distrib, atol=1e-7)
    tables = [np.asarray(t) for t in (mdp.probability, mdp.next_state, mdp.reward, mdp.terminated)]
    for s in range(mdp.num_states):
        for a in range(mdp.num_actions):
            expected, actual = Counter(), Counter()
            for p, *outcome in theirs.unwrapped.P[s][a]:
                expected[int(outcome[0]), float(outcome[1]), bool(outcome[2])] += p
            for p, *outcome in zip(*(t[s, a] for t in tables), strict=True):
                actual[int(outcome[0]), float(outcome[1]), bool(outcome[2])] += float(p)
            assert expected.keys() == actual.keys()
            np.testing.assert_allclose([actual[k] for k in expected], list(expected.values()), atol=1e-6)


@pytest.mark.parametrize("name", ["CliffWalking-v1", "Taxi-v4"])
def test_deterministic_trajectories_equal_gymnasiums(name):
    """Thousands of steps, ends and time limits included."""
    mdp, theirs = FiniteMDP.from_gymnasium(name), gymnasium.make(name, disable_env_checker=True)
    actions = np.random.default_rng(0).integers(0, mdp.num_actions, 2000)
    rows, time = [], 0
    theirs.reset(seed=0)
    for action in actions:
        before = int(theirs.unwrapped.s)
        observation, reward, terminated, truncated, _ = theirs.step(action)
        rows.append((before, time, observation, reward, terminated, truncated))
        time += 1
        if terminated or truncated:
            theirs.reset()
            time = 0
    before, times, observation, reward, terminated, truncated = (np.asarray(c) for c in zip(*rows, strict=True))
    state = MDPState(jnp.asarray(before, jnp.int32), jnp.asarray(times, jnp.int32))
    step = jax.vmap(mdp.step)(state, jnp.asarray(actions), jax.random.split(jax.random.key(0), len(actions)))
    np.testing.assert_array_equal(step.observation, observation)
    np.testing.assert_array_equal(step.reward, reward)
    np.testing.assert_array_equal(step.terminated, terminated)
    np.testing.assert_array_equal(step.truncated, truncated)
    assert truncated.any() == (name == "Taxi-v4")


@pytest.mark.reuses_keys
def test_outcomes_and_starts_are_drawn_by_their_probabilities():
    """Frequencies of 20,000 draws, within four standard errors; what has probability 0 is never drawn."""
    probability = np.array([[[0.0, 0.25, 0.0, 0.7, 0.05, 0.0]]] * 6)
    outcomes = np.broadcast_to(np.arange(6), (6, 1, 6))
    start = np.array([0.0, 0.1, 0.0, 0.6, 0.3, 0.0])
    mdp = FiniteMDP.create(outcomes, probability, outcomes * 10, outcomes == 4, start)
    draws = 20_000
    keys = jax.random.split(jax.random.key(0), draws)
    state, observation = jax.vmap(mdp.reset)(keys)
    step = jax.vmap(mdp.step)(state, jnp.zeros(draws, jnp.int32), keys)
    for drawn, expected in ((observation, start), (step.observation, probability[0, 0])):
        frequency = np.bincount(drawn, minlength=6) / draws
        assert (np.abs(frequency - expected) <= 4 * np.sqrt(expected * (1 - expected) / draws)).all()
    np.testing.assert_array_equal(step.reward, np.asarray(step.observation) * 10)
    np.testing.assert_array_equal(step.terminated, np.asarray(step.observation) == 4)
    assert not step.truncated.any()


@pytest.mark.parametrize(("uniform", "drawn"), [(0.0, 1), (1 - 2.0**-23, 700)])
def test_rounding_never_draws_an_impossible_outcome(uniform, drawn, monkeypatch):
    """The smallest and the largest uniform number; the first and the last state are impossible."""
    start = np.concatenate([[0.0], np.full(700, 1 / 700), [0.0]])
    mdp = FiniteMDP.create(np.zeros((702, 1, 1), int), np.ones((702, 1, 1)), *2 * [np.zeros((702, 1, 1))], start)
    assert jnp.cumsum(mdp.start)[-1] < 1 - 2.0**-23  # in single precision, the sum falls short of the largest
    monkeypatch.setattr(jax.random, "uniform", lambda key: jnp.float32(uniform))
    _, observation = mdp.reset(jax.random.key(0))
    assert observation == drawn


def test_from_dense():
    """A corridor 0 - 1 - 2 with a goal at 2; action 1 goes right with probability 0.9, action 0 always stays."""
    transition = np.zeros((3, 2, 3))
    transition[:, 0] = np.eye(3)
    transition[0, 1] = [0.1, 0.9, 0.0]
    transition[1, 1] = [0.0, 0.1, 0.9]
    transition[2, 1] = [0.0, 0.0, 1.0]
    reward = np.zeros((3, 2, 3))
    reward[1, 1, 2] = 5.0
    mdp = FiniteMDP.from_dense(transition, reward, [1.0, 0.0, 0.0], [False, False, True], max_steps=7)
    assert mdp.next_state.shape == (3, 2, 2)
    s, a, _ = np.indices(mdp.next_state.shape)
    dense = np.zeros((3, 2, 3))
    np.add.at(dense, (s, a, np.asarray(mdp.next_state)), np.asarray(mdp.probability))
    np.testing.assert_allclose(dense, transition, atol=1e-7)
    np.testing.assert_array_equal(mdp.terminated, np.asarray(mdp.next_state) == 2)
    assert mdp.reward[1, 1].max() == 5.0 and mdp.max_steps == 7


def test_time_limit_truncates():
    mdp = FiniteMDP.from_gymnasium("FrozenLake-v1", is_slippery=False, max_episode_steps=3)
    state, _ = mdp.reset(jax.random.key(0))
    flags = []
    for _ in range(3):
        step = mdp.step(state, jnp.int32(0), jax.random.key(1))  # into the wall
        state = step.state
        flags.append((bool(step.terminated), bool(step.truncated)))
    assert flags == [(False, False), (False, False), (False, True)]


GOOD = {
    "next_state": np.zeros((2, 1, 1), int),
    "probability": np.ones((2, 1, 1)),
    "reward": np.zeros((2, 1, 1)),
    "terminated": np.zeros((2, 1, 1), bool),
    "start": np.array([0.5, 0.5]),
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probability": np.full((2, 1, 1), 0.9)}, "probability of state 0, action 0 must be a distribution.*0.9"),
        ({"probability": np.full((2, 1, 1), np.nan)}, "probability of state 0"),
        ({"start": np.array([1.5, -0.5])}, "start must be a distribution"),
        ({"start": np.ones(3) / 3}, "start must be a distribution over the 2 states"),
        ({"next_state": np.full((2, 1, 1), 2)}, "numbers of states, 0 to 1"),
        ({"next_state": np.zeros((2, 1))}, "table"),
        ({"reward": np.zeros((2, 1, 2))}, r"reward has shape \(2, 1, 2\)"),
        ({"reward": np.full((2, 1, 1), np.inf)}, "not finite"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_bad_tables_are_refused(change, words):
    FiniteMDP.create(**GOOD)
    with pytest.raises(BadInput, match=words):
        FiniteMDP.create(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("CartPole-v1", {}, "CartPole-v1 is not a finite MDP"),
        ("Taxi-v4", {"fickle_passenger": True}, "fickle_passenger"),
        ("FrozenLake-v9", {}, "FrozenLake-v1"),
        ("FrozenLake-v1", {"depth": 3}, "depth"),
    ],
)
def test_other_environments_are_refused(name, options, words):
    with pytest.raises(BadInput, match=words):
        FiniteMDP.from_gymnasium(name, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["transition"].__setitem__((2, 0), [0.0, 1.0, 0.0]), "state 2 is terminal, but an action leads on"),
        (lambda t: t["reward"].__setitem__((2, 1, 2), 1.0), "state 2 is terminal, but an action is rewarded there"),
        (lambda t: t.update(start=[0.5, 0.0, 0.5]), "state 2 is terminal, but episodes may begin there"),
        (lambda t: t["transition"].__setitem__((1, slice(None)), [0.0, 1.0, 0.0]), "state 2 is .* cannot be reached"),
    ],
)
def test_terminal_states_that_cannot_be_meant_are_refused(change, message):
    """0 -> 1 -> 2, which is terminal."""
    transition = np.zeros((3, 2, 3))
    transition[0, :, 1] = transition[1, :, 2] = transition[2, :, 2] = 1.0
    tables = {"transition": transition, "reward": np.zeros((3, 2, 3)), "start": [1.0, 0.0, 0.0]}
    FiniteMDP.from_dense(**tables, terminal=[False, False, True])
    change(tables)
    with pytest.raises(BadInput, match=message):
        FiniteMDP.from_dense(**tables, terminal=[False, False, True])


def test_a_terminal_state_needs_no_row():
    transition = np.zeros((2, 1, 2))
    transition[0, 0, 1] = 1.0
    mdp = FiniteMDP.from_dense(transition, np.zeros((2, 1, 2)), [1.0, 0.0], [False, True])
    assert mdp.next_state[:, 0, 0].tolist() == [1, 1] and mdp.terminated[:, 0, 0].tolist() == [True, True]
