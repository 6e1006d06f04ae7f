"""Actions in the environment's units, for NumPy and JAX alike; the scan's bookkeeping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.rollout import Episodes, env_action, reset, rollout
from tests.probe_envs import Probe


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_a_bounded_box_is_scaled_and_clipped(array: type) -> None:
    space = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    action = array(np.array([[-1.0, -1.0], [0.0, 0.0], [0.5, 1.0], [7.0, -7.0]], np.float32))
    np.testing.assert_allclose(env_action(space, action), [[-2, 0], [0, 5], [1, 10], [2, 0]])


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_unbounded_dimensions_pass(array: type) -> None:
    space = spaces.Box(np.array([-np.inf, -3.0], np.float32), np.array([np.inf, 3.0], np.float32))
    np.testing.assert_allclose(env_action(space, array(np.array([[9.0, 9.0]], np.float32))), [[9.0, 3.0]])


def test_discrete_actions_start_where_the_space_does() -> None:
    assert env_action(spaces.Discrete(3, start=-1), jnp.array([0, 2])).tolist() == [-1, 1]
    assert env_action(spaces.Discrete(3), jnp.array([0, 2])).tolist() == [0, 2]
    assert env_action(spaces.MultiDiscrete([2, 2], start=[5, 7]), np.array([[0, 1]])).tolist() == [[5, 8]]


def test_episodes_are_counted_across_trajectories() -> None:
    env = Probe("endless")  # reward 1, five steps
    act = lambda memory, observation, key: (jnp.zeros(3, jnp.int32), memory + 1, {"memory": memory})  # noqa: E731
    actor, ended = reset(env, jax.random.key(0), jnp.zeros(3, jnp.int32), 3), []
    memories = []
    for i in range(4):
        actor, trajectory = rollout(env, act, actor, jnp.zeros(3, jnp.int32), jax.random.key(i + 1), 3)
        assert actor.episodes.ended_return == 5 * actor.episodes.ended
        assert actor.episodes.ended_length == 5 * actor.episodes.ended
        ended.append(int(actor.episodes.ended))
        memories += trajectory.extras["memory"][:, 0].tolist()
    assert ended == [0, 3, 0, 3]  # after 3, 6, 9 and 12 steps of three environments
    assert memories == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]  # an episode's end resets the memory
    assert actor.episodes.reward.tolist() == [2.0] * 3
    assert isinstance(actor.episodes, Episodes)
