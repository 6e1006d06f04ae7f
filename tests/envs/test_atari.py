"""Atari games: stacks that follow each other, ends and successors, seeds, what is refused."""

import numpy as np
import pytest

pytest.importorskip("ale_py")

from parnassus import envs
from parnassus.envs.atari import AtariEnvs, names
from parnassus.types import BadInput


def play(game, steps, seed=3, num_envs=2, **options):
    made = AtariEnvs(game, num_envs, **options)
    actions = np.random.default_rng(0).integers(0, made.action_space.n, (steps, num_envs))
    first = made.reset([seed + i for i in range(num_envs)])
    rows = [made.step(row) for row in actions]
    made.close()
    return first, rows


def test_frames_follow_each_other_within_an_episode_and_successors_are_true():
    """The older frames of every successor are the newer ones of its observation, also in an episode's last step."""
    current, rows = play("breakout", 200, episodic_life=True)
    assert current.shape == (2, 4, 84, 84) and current.dtype == np.uint8
    ended = 0
    for after in rows:
        np.testing.assert_array_equal(after.next_observation[:, :-1], current[:, 1:])
        done = after.terminated | after.truncated
        np.testing.assert_array_equal(after.observation[~done], after.next_observation[~done])
        ended += done.sum()
        current = after.observation
    assert ended > 4


def test_a_frame_limit_truncates():
    _, rows = play("pong", 40, max_num_frames_per_episode=100)
    truncated = np.array([after.truncated for after in rows])
    assert truncated.any() and not any(after.terminated.any() for after in rows)


def test_seeds_fix_the_future():
    one, again, other = (play("breakout", 120, seed) for seed in (3, 3, 5))
    same = [(a.next_observation == b.next_observation).all() for a, b in zip(one[1], again[1], strict=True)]
    assert all(same)
    assert not all((a.next_observation == b.next_observation).all() for a, b in zip(one[1], other[1], strict=True))


def test_rewards_are_clipped_unless_asked():
    clipped, points = (
        np.array([after.reward for after in play("space_invaders", 300, reward_clipping=clip)[1]])
        for clip in (True, False)
    )
    assert set(np.unique(clipped)) <= {-1.0, 0.0, 1.0}
    assert points.max() > 1.0
    np.testing.assert_array_equal(np.sign(points), clipped)


def test_by_name():
    made = envs.make("atari:pong", 3)
    assert isinstance(made, AtariEnvs) and made.num_envs == 3
    made.close()
    assert "atari:breakout" in envs.names()["atari"]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("brekout",), {}, "unknown Atari game 'brekout'; did you mean breakout"),
        (("breakout", 0), {}, "num_envs must be at least 1, not 0"),
        (("breakout",), {"frame_skip": 3}, "atari:breakout does not accept the options {'frame_skip': 3}"),
    ],
)
def test_what_is_refused(arguments, options, message):
    with pytest.raises(BadInput, match=message):
        AtariEnvs(*arguments, **options)


def test_every_game_has_a_name():
    assert len(names()) > 50
