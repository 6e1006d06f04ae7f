"""What tabular algorithms share: greedy policies, windows, the past, first visits and means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus import tabular
from parnassus.exploration import epsilon_greedy
from parnassus.tabular import Past, Window
from parnassus.types import BadInput, Spec, Transition


def step(state: list[int], reward: list[float], done: list[bool]) -> Transition:
    """Of two environments."""
    s, over = jnp.array(state, jnp.int32), jnp.array(done)
    return Transition(s, s, jnp.array(reward), s, over, jnp.zeros_like(over), {})


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_the_epsilon_greedy_policy_is_what_is_acted_by(epsilon: float) -> None:
    q = jnp.array([1.0, 3.0, 3.0, 2.0])
    actions = epsilon_greedy(jax.random.key(0), jnp.tile(q, (20_000, 1)), epsilon)
    policy = tabular.epsilon_greedy_policy(q, epsilon)
    np.testing.assert_allclose(np.bincount(actions, minlength=4) / 20_000, policy, atol=0.015)
    assert float(tabular.expected_value(q, epsilon)) == pytest.approx(float(policy @ q), rel=1e-5)


def test_a_window_holds_the_last_steps_of_each_episode() -> None:
    window = Window.create(3, 2)
    for state, done in (([1, 5], [False, False]), ([2, 6], [False, True]), ([3, 7], [False, False])):
        window = window.push(step(state, [1.0, 2.0], done)).drop(jnp.array(done))
    # The first environment's window was full, so its oldest step is dropped; the second's episode is a step old.
    assert window.count.tolist() == [2, 1]
    assert window.state[-2:, 0].tolist() == [2, 3] and window.state[-1, 1] == 7
    returns = window.returns(0.5, jnp.array([10.0, 0.0]))
    assert returns[-2:, 0].tolist() == [1 + 0.5 * (1 + 0.5 * 10), 1 + 0.5 * 10] and returns[-1, 1] == 2.0
    full = window.push(step([4, 8], [0.0, 0.0], [False, True]))
    assert full.due(jnp.array([False, True])).tolist() == [[True, False], [False, True], [False, True]]


def test_a_windows_updates_are_made_in_order() -> None:
    window = Window.create(3, 1)._replace(count=jnp.array([2]))
    due = window.due(jnp.array([True]))
    order = window.update(jnp.zeros(3), due, lambda table, k: table.at[k].set(jnp.where(due[k, 0], table.max() + 1, 0)))
    assert order.tolist() == [0, 1, 2]
    assert window.update(0, jnp.zeros((3, 1), bool), lambda table, k: table + 1) == 0


def trajectory(done: list[list[bool]], first: int = 0) -> Transition:
    over = jnp.array(done)
    number = jnp.arange(first, first + over.size, dtype=jnp.int32).reshape(over.shape)
    return Transition(number, number, number.astype(jnp.float32), number, over, jnp.zeros_like(over), {})


def test_the_past_keeps_what_is_not_over() -> None:
    past = Past.create(4, 2)
    steps, use, past = past.with_(trajectory([[False, False], [False, True], [False, False]]))
    assert use[:, 0].sum() == 0 and use[:, 1].tolist() == [False] * 4 + [True, True, False]
    assert past.count.tolist() == [3, 1]
    steps, use, past = past.with_(trajectory([[False, False], [True, False], [False, False]], first=10))
    assert steps.observation[use[:, 0], 0].tolist() == [0, 2, 4, 10, 12]
    assert not use[:, 1].any() and past.count.tolist() == [1, 4]
    assert past.step.observation[:, 1].tolist() == [5, 11, 13, 15]
    _, use, past = past.with_(trajectory([[True, False], [False, False], [False, True]], first=20))
    assert use.sum(0).tolist() == [2, 7] and past.count.tolist() == [2, 0]


def test_of_a_long_episode_the_first_steps_are_forgotten() -> None:
    past = Past.create(2, 1)
    for first in (0, 10, 20):
        steps, use, past = past.with_(trajectory([[False], [False], [False]], first))
        assert not use.any() and past.count.tolist() == [2]
    steps, use, past = past.with_(trajectory([[True]], 30))
    assert steps.observation[use[:, 0], 0].tolist() == [21, 22, 30] and past.count.tolist() == [0]


def test_first_visits() -> None:
    visited = jnp.array([[0], [1], [0], [1], [0], [2]])
    done = jnp.array([[False], [False], [True], [False], [False], [False]])
    exists = jnp.array([[False], [True], [True], [True], [True], [True]])
    assert tabular.first_visits(visited, done, exists, 3)[:, 0].tolist() == [False, True, True, True, True, True]
    all_there = tabular.first_visits(visited, done, jnp.ones_like(exists), 3)
    assert all_there[:, 0].tolist() == [True, True, False, True, True, True]


def test_means_are_the_same_in_one_go_and_in_many() -> None:
    rng = np.random.default_rng(0)
    where, target = rng.integers(0, 3, (6, 2)), rng.normal(size=(6, 2)).astype(np.float32)
    ratio = rng.uniform(0, 2, (6, 2)).astype(np.float32)
    mean, weight = jnp.full(4, 7.0), jnp.zeros(4)
    for i in (0, 3):
        rows = jnp.asarray(where[i : i + 3]), jnp.asarray(target[i : i + 3]), jnp.asarray(ratio[i : i + 3])
        mean, weight = tabular.averaged(mean, weight, (rows[0],), rows[1], rows[2], rows[2])
    for s in range(3):
        of = where == s
        assert float(mean[s]) == pytest.approx((ratio * target)[of].sum() / ratio[of].sum(), rel=1e-4)
    assert float(mean[3]) == 7.0 and float(weight[3]) == 0.0  # never seen


@pytest.mark.parametrize("part", ["observation", "action"])
def test_continuous_spaces_are_refused(part: str) -> None:
    box, few = spaces.Box(-1, 1, (2,)), spaces.Discrete(3)
    spec = Spec(box, few, 1) if part == "observation" else Spec(few, box, 1)
    with pytest.raises(BadInput, match=f"SARSA keeps a table and needs a Discrete {part} space"):
        tabular.sizes(spec, "SARSA")
