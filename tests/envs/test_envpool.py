"""EnvPool with resets in the same step."""

import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("envpool")

from parnassus.envs.envpool import EnvPoolEnvs
from parnassus.types import BadInput


def trajectory(envs, seeds, actions):
    first = envs.reset(seeds)
    return first, [envs.step(action) for action in actions]


def test_cartpole_obeys_its_equations_across_episodes():
    """Every step, also the first of an episode, moves x by 0.02 x_dot; ends are where Gymnasium puts them.

    A dummy step, a skipped step or a successor from the wrong episode would break the chain.
    """
    actions = np.random.default_rng(0).integers(0, 2, (400, 4))
    envs = EnvPoolEnvs("CartPole-v1", 4, max_episode_steps=25)
    current, steps = trajectory(envs, [1, 2, 3, 4], actions)
    length, ended = np.zeros(4, int), np.zeros(2, int)
    for after in steps:
        length += 1
        np.testing.assert_allclose(after.next_observation[:, 0], current[:, 0] + 0.02 * current[:, 1], atol=1e-6)
        np.testing.assert_allclose(after.next_observation[:, 2], current[:, 2] + 0.02 * current[:, 3], atol=1e-6)
        fell = (np.abs(after.next_observation[:, [0, 2]]) > [2.4, np.pi / 15]).any(1)
        np.testing.assert_array_equal(after.truncated, length == 25)
        np.testing.assert_array_equal(after.terminated, fell & (length < 25))
        np.testing.assert_array_equal(after.reward, 1.0)
        done = after.terminated | after.truncated
        assert (np.abs(after.observation[done]) <= 0.05).all()  # first states
        np.testing.assert_array_equal(after.observation[~done], after.next_observation[~done])
        ended += [after.terminated.sum(), after.truncated.sum()]
        current, length = after.observation, np.where(done, 0, length)
    assert (ended > 0).all()
    envs.close()


def test_same_seeds_same_future_and_each_its_own():
    actions = np.random.default_rng(0).integers(0, 2, (60, 2))
    envs = EnvPoolEnvs("CartPole-v1", 2, num_threads=2)
    (first, steps), (again, steps_again) = (trajectory(envs, [5, 6], actions) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for a, b in zip(steps, steps_again, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert any(step.terminated.any() for step in steps)  # so later episodes are the same, too
    np.testing.assert_array_equal(envs.reset([6, 5 + 2**31]), first[::-1])


def test_arrays_may_be_kept():
    envs = EnvPoolEnvs("CartPole-v1", 2)
    first, steps = trajectory(envs, [0, 1], np.zeros((3, 2), int))
    copies = [np.copy(first), *(step.observation.copy() for step in steps)]
    for _ in range(100):
        envs.step(np.ones(2, int))
    for kept, copy in zip([first, *(step.observation for step in steps)], copies, strict=True):
        np.testing.assert_array_equal(kept, copy)


def test_doubles_become_single_and_actions_the_pools_own():
    envs = EnvPoolEnvs("HalfCheetah-v5", 2)
    assert envs.observation_space == spaces.Box(-np.inf, np.inf, (17,), np.float32)
    assert envs.reset([0, 1]).dtype == np.float32
    after = envs.step(np.zeros((2, 6), np.float32))
    assert after.next_observation.dtype == after.reward.dtype == np.float32
    assert after.observation.shape == (2, 17) and not after.truncated.any()


def test_dict_observations():
    envs = EnvPoolEnvs("CartpoleBalance-v1", 2, max_episode_steps=3)
    assert isinstance(envs.observation_space, spaces.Dict)
    envs.reset([0, 1])
    for t in range(4):
        after = envs.step(np.zeros((2, *envs.action_space.shape)))
        for key, space in envs.observation_space.items():
            assert after.observation[key].shape == (2, *space.shape)
            assert after.observation[key].dtype == space.dtype == np.float32
            changed = (after.observation[key] != after.next_observation[key]).any()
            assert changed == (t == 2)
        assert after.truncated.all() == after.truncated.any() == (t == 2)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("CartPole-v9", {}, "unknown EnvPool environment 'CartPole-v9'; did you mean CartPole-v"),
        ("CartPole-v1", {"colour": "red"}, "envpool:CartPole-v1 does not accept.*colour"),
        ("CartPole-v1", {"num_envs": 0}, "num_envs must be at least 1"),
        ("TicTacToe-v1", {}, "several players"),
    ],
)
def test_bad_input(name, options, words):
    with pytest.raises(BadInput, match=words):
        EnvPoolEnvs(name, **options)


def test_envpool_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "envpool", None)
    with pytest.raises(BadInput, match=r'pip install "parnassus\[envpool\]"'):
        EnvPoolEnvs("CartPole-v1")
