"""The textbook's worlds: their exact numbers, Gymnasium's own rules where it has them, and how they are drawn."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import dynamic_programming as dp
from parnassus import envs
from parnassus.envs import textbook
from parnassus.envs.mdp import FiniteMDP
from parnassus.envs.textbook import GRIDS, WORLDS, Grid, blackjack_state
from parnassus.tabular import epsilon_greedy_policy
from parnassus.types import BadInput, Env


@pytest.mark.parametrize("name", WORLDS)
def test_worlds_are_environments(name: str) -> None:
    mdp = envs.make(f"jax:{name}")
    assert isinstance(mdp, Env)
    state, observation = mdp.reset(jax.random.key(0))
    for action in range(mdp.num_actions):
        step = mdp.step(state, jnp.int32(action), jax.random.key(action))
        assert mdp.observation_space.contains(int(step.observation))
    assert float(mdp.start[observation]) > 0


@pytest.mark.parametrize("name", GRIDS)
def test_grids_show_where_moves_lead(name: str) -> None:
    """From every cell, what an arrow says is where the most probable outcome lies, if nothing stands or blows there."""
    mdp, grid = envs.make(f"jax:{name}"), GRIDS[name]
    assert isinstance(grid, Grid) and grid.rows * grid.columns == mdp.num_states
    assert len(grid.actions) >= mdp.num_actions and len(set(grid.actions)) == len(grid.actions)
    moves = {arrow: move for move, arrow in textbook.ARROWS.items()}
    agree = 0
    for s in range(mdp.num_states):
        for a in range(mdp.num_actions):
            down, right = moves[grid.actions[a]]
            there = np.asarray(mdp.next_state[s, a])[np.asarray(mdp.probability[s, a]) > 0]
            row, column = s // grid.columns + down, s % grid.columns + right
            agree += row * grid.columns + column in there
    assert agree > 0.35 * mdp.num_states * mdp.num_actions  # the wind blows in most columns of one


def test_grid_world_4x4() -> None:
    """Figure 4.1, k = infinity."""
    v = dp.evaluate(textbook.grid_world_4x4(), "random", 1.0, method="linear").v
    expected = [[0, -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, 0]]
    np.testing.assert_allclose(v.reshape(4, 4), expected, atol=1e-4)
    swept = dp.evaluate(textbook.grid_world_4x4(), "random", 1.0).v
    np.testing.assert_allclose(swept, v, atol=1e-2)


def test_grid_world_5x5() -> None:
    """Figures 3.2 and 3.5, to four digits."""
    mdp = textbook.grid_world_5x5()
    expected = [
        [3.3090, 8.7893, 4.4276, 5.3224, 1.4922],
        [1.5216, 2.9923, 2.2501, 1.9076, 0.5474],
        [0.0508, 0.7382, 0.6731, 0.3582, -0.4031],
        [-0.9736, -0.4355, -0.3549, -0.5856, -1.1831],
        [-1.8577, -1.3452, -1.2293, -1.4229, -1.9752],
    ]
    np.testing.assert_allclose(dp.evaluate(mdp, "random", 0.9).v.reshape(5, 5), expected, atol=1e-4)
    best = dp.value_iteration(mdp, 0.9).v
    np.testing.assert_allclose(best[:5], [21.9775, 24.4194, 21.9775, 19.4194, 17.4775], atol=2e-4)


def test_gambler() -> None:
    """Figure 4.3's values; its policy is one of many."""
    capital = np.array([1, 25, 50, 51, 75, 99])
    expected = [0.002066, 0.16, 0.4, 0.403098, 0.64, 0.964333]
    for solution in (dp.value_iteration(textbook.gambler(), 1.0), dp.policy_iteration(textbook.gambler(), 1.0)):
        np.testing.assert_allclose(solution.v[capital], expected, atol=1e-5)


def test_car_rental() -> None:
    """Figure 4.2's policy and values."""
    solution = dp.policy_iteration(textbook.car_rental(), 0.9)
    np.testing.assert_allclose(solution.v[np.array([0, 220, 440])], [421.414, 574.948, 636.990], atol=2e-3)
    first, second = np.mgrid[:21, :21]
    moved = np.clip(np.asarray(solution.actions).reshape(21, 21) - 5, -second, first)
    assert moved[10].tolist() == [4, 4, 3, 3, 2, 1, *[0] * 15]
    assert moved[20].tolist() == [5, 5, 5, 5, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1, 0, 0, 0]
    values, counts = np.unique(moved, return_counts=True)
    assert values.tolist() == list(range(-4, 6))
    assert counts.tolist() == [3, 9, 14, 17, 270, 33, 29, 23, 17, 26]


@pytest.mark.parametrize(
    ("rules", "best"),
    [({}, -0.043113), ({"sab": False}, -0.046556), ({"sab": False, "natural": True}, -0.025729)],
)
def test_blackjack(rules: dict, best: float) -> None:
    mdp = textbook.blackjack(**rules)
    solution = dp.value_iteration(mdp, 1.0)
    assert float(solution.v @ mdp.start) == pytest.approx(best, abs=1e-6)
    sticks = np.asarray(solution.actions) == 0
    for ace, least, expected in (
        (True, 12, [19, 18, 18, 18, 18, 18, 18, 18, 19, 19]),
        (False, 11, [17, 13, 13, 12, 12, 12, 17, 17, 17, 17]),
    ):
        first = [next(t for t in range(least, 22) if sticks[blackjack_state(t, d, ace)]) for d in range(1, 11)]
        assert first == expected


def stick_on_20() -> np.ndarray:
    """The policy of example 5.1."""
    policy = np.ones(370, int)
    policy[360:] = 0
    for dealer in range(1, 11):
        for total in (20, 21):
            policy[[blackjack_state(total, dealer, ace) for ace in (False, True)]] = 0
    return policy


def test_blackjack_policies() -> None:
    mdp = textbook.blackjack()
    assert float(dp.evaluate(mdp, "random", 1.0).v @ mdp.start) == pytest.approx(-0.394175, abs=1e-6)
    solution = dp.evaluate(mdp, stick_on_20(), 1.0)
    assert float(solution.v @ mdp.start) == pytest.approx(-0.350111, abs=1e-6)
    assert float(solution.v[blackjack_state(13, 2, True)]) == pytest.approx(-0.27720, abs=1e-5)  # example 5.4


@pytest.mark.parametrize("rules", [{"sab": True}, {"natural": True}, {}])
def test_blackjack_is_gymnasiums(rules: dict) -> None:
    """The mean return of sticking on 17 in 20,000 of its games lies within four standard errors of ours."""
    env = gymnasium.make("Blackjack-v1", **{"sab": False, "natural": False, **rules})
    returns = []
    observation, _ = env.reset(seed=0)
    while len(returns) < 20_000:
        observation, reward, over, _, _ = env.step(int(observation[0] < 17))
        if over:
            returns.append(reward)
            observation, _ = env.reset()
    mdp = textbook.blackjack(**{"sab": False, **rules})
    total = np.append(np.arange(360) // 20 + 4, np.full(10, 21))
    ours = float(dp.evaluate(mdp, (total < 17).astype(int), 1.0).v @ mdp.start)
    assert np.mean(returns) == pytest.approx(ours, abs=4 * np.std(returns) / np.sqrt(len(returns)))


def test_windy_grid_world() -> None:
    """Example 6.5: fifteen steps; with king's moves, seven."""
    assert float(dp.value_iteration(textbook.windy_grid_world(), 1.0).v[30]) == -15
    assert float(dp.value_iteration(textbook.windy_grid_world(kings=True), 1.0).v[30]) == -7


def test_short_corridor() -> None:
    """Example 13.1: v of the best probability of right, 2 - sqrt(2), and of the epsilon-greedy policies."""
    mdp = textbook.short_corridor()
    for right, expected in ((2 - np.sqrt(2), -11.6569), (0.95, -44.21), (0.05, -82.11)):
        v = dp.evaluate(mdp, np.tile([1 - right, right], (3, 1)), 1.0, method="linear").v
        assert float(v[0]) == pytest.approx(expected, abs=0.01)


def test_dyna_maze() -> None:
    """Example 8.1: the shortest way has 14 steps, so v = gamma^13."""
    assert float(dp.value_iteration(textbook.dyna_maze(), 0.95).v[18]) == pytest.approx(0.95**13, rel=1e-5)


def test_cliff_walking() -> None:
    """The best policy, what epsilon-greedy on its values returns, and the best that is epsilon-soft itself."""
    mdp = envs.make("jax:CliffWalking-v1")
    best = dp.policy_iteration(mdp, 1.0)
    assert float(best.v[36]) == -13
    for epsilon, greedy, soft in ((0.1, -50.80, -20.71), (0.05, -29.89, -17.52), (0.01, -16.11, -15.44)):
        policy = epsilon_greedy_policy(jnp.round(best.q, 3), epsilon)
        assert float(dp.evaluate(mdp, policy, 1.0, method="linear").v[36]) == pytest.approx(greedy, abs=0.01)
        found = dp.policy_iteration(epsilon_soft(mdp, epsilon), 1.0)
        assert float(found.v[36]) == pytest.approx(soft, abs=0.01)


def epsilon_soft(mdp: FiniteMDP, epsilon: float) -> FiniteMDP:
    """The world in which each action is now and then replaced by a random one."""
    size, actions, _ = mdp.next_state.shape
    mixed = np.zeros((size, actions, actions, 1))
    tables = (mdp.next_state, mdp.reward, mdp.terminated)
    next_state, reward, terminated = ((mixed + np.asarray(x)[:, None])[..., 0] for x in tables)
    share = epsilon / actions + (1 - epsilon) * np.eye(actions)
    probability = np.broadcast_to(share, (size, actions, actions))
    return FiniteMDP.create(next_state.astype(int), probability, reward, terminated, mdp.start)


def test_frozen_lake() -> None:
    """Without a time limit, with one of a hundred steps, and discounted."""
    mdp = envs.make("jax:FrozenLake-v1")
    assert float(dp.policy_iteration(mdp, 1.0).v[0]) == pytest.approx(0.8235, abs=1e-4)
    v = jnp.zeros(16)
    for _ in range(100):
        v = dp.action_values(mdp, v, 1.0).max(-1)
    assert float(v[0]) == pytest.approx(0.7442, abs=1e-4)
    assert float(dp.value_iteration(mdp, 0.99).v[0]) == pytest.approx(0.5420, abs=1e-4)


def test_random_walk() -> None:
    """Example 6.2: sixths; example 7.1: tenths from -0.9 to 0.9."""
    v = dp.evaluate(textbook.random_walk(), "random", 1.0, method="linear").v
    np.testing.assert_allclose(v, np.arange(1, 6) / 6, atol=1e-6)
    v = dp.evaluate(textbook.random_walk(19, -1.0), "random", 1.0, method="linear").v
    np.testing.assert_allclose(v, np.arange(-9, 10) / 10, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("RandomWalk", {"num_states": 0}, "num_states must be at least 1"),
        ("Gambler", {"heads": 1.5}, "heads must be a probability"),
        ("Gambler", {"goal": 1}, "goal must be at least 2"),
        ("GridWorld4x4", {"size": 5}, "does not know an option"),
        ("GridWorld", {}, "did you mean"),
    ],
)
def test_bad_input(name: str, options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        envs.make(f"jax:{name}", **options)
