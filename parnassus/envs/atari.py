"""Atari games by ale-py's own vector environment: emulated, cut to 84x84 and stacked in C++, by threads."""

import warnings
from typing import Any

import numpy as np

from parnassus.envs.gymnasium import did_you_mean
from parnassus.types import BadInput, HostStep, Tree


class AtariEnvs:
    """N copies of an Atari game, reset in the same step in which an episode ends (implements HostEnv).

    The usual preprocessing (Mnih et al. 2015; Machado et al. 2018): a step is `frameskip=4` frames with one action, of
    the last two of which the brighter pixels are taken; the newest `stack_num=4` of these, grey and 84x84, are an
    observation [4, 84, 84]. An episode starts with up to `noop_max=30` idle frames, then FIRE where the game waits for
    it (`use_fire_reset=True`). Rewards are clipped to -1, 0, 1 (`reward_clipping=True`): returns count events, not
    points. Off unless asked for: sticky actions (`repeat_action_probability=0.25`), a lost life as an episode's end
    (`episodic_life=True`). A game is cut short after 108,000 frames (`max_num_frames_per_episode`), which truncates.

    `options` go to `ale_py.vector_env.AtariVectorEnv`. Raises BadInput for an unknown game or option, or if ale-py is
    not installed.
    """

    def __init__(self, game: str, num_envs: int = 1, **options: Any) -> None:
        if num_envs < 1:
            raise BadInput(f"num_envs must be at least 1, not {num_envs}")
        known = names()
        if not known:
            raise BadInput('Atari games need ale-py: pip install "parnassus[atari]"')
        if game not in known:
            raise BadInput(f"unknown Atari game {game!r}; {did_you_mean(game, known)}")
        from ale_py.vector_env import AtariVectorEnv

        try:
            self._envs = AtariVectorEnv(game, num_envs, **{"autoreset_mode": "SameStep", **options})
        except (TypeError, ValueError, AssertionError) as cause:
            raise BadInput(
                f"atari:{game} does not accept the options {options}: {str(cause).splitlines()[0]}"
            ) from cause
        self.num_envs = num_envs
        self.observation_space, self.action_space = self._envs.single_observation_space, self._envs.single_action_space

    def reset(self, seeds: list[int]) -> Tree:
        """Start every game afresh, game i from seeds[i]. [N, ...]."""
        return self._envs.reset(seed=np.asarray(seeds, np.int64) % 2**31)[0]

    def step(self, actions: np.ndarray) -> HostStep:
        """One step of every game; actions [N]."""
        observation, reward, terminated, truncated, info = self._envs.step(actions.astype(np.int64))
        done = terminated | truncated
        next_observation = observation
        if done.any():
            next_observation = observation.copy()
            next_observation[done] = info["final_obs"][done]
        return HostStep(observation, next_observation, reward.astype(np.float32), terminated, truncated)

    def close(self) -> None:
        """Stop the threads; may be called twice."""
        self._envs.close()


def names() -> list[str]:
    """All games that ale-py knows; none if it is not installed."""
    try:
        from ale_py import roms
    except ImportError:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sorted(roms.get_all_rom_ids())
