"""Runs that take a second, whether two are the same, and environments that misbehave at a given step."""

import os
from pathlib import Path

import gymnasium
import jax
import numpy as np

import parnassus as pa
from parnassus.algorithms.ppo import PPO
from parnassus.tracking import read_columns


def tiny_ppo(**fields):
    return PPO(**{"num_steps": 8, "minibatch_size": 16, "num_epochs": 1, "hidden_sizes": (4,), **fields})


def tiny_run(directory, env="jax:CartPole-v1", steps=64, algorithm=None, **options):
    """Chunks of 16 environment steps, one iteration each."""
    options = {"num_envs": 2, "chunk_steps": 16, "quiet": True, **options}
    return pa.train(algorithm or tiny_ppo(), env, steps, run=directory, **options)


def leaves(state):
    def to_numpy(x):
        is_key = jax.dtypes.issubdtype(getattr(x, "dtype", np.dtype(float)), jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return {jax.tree_util.keystr(path): to_numpy(x) for path, x in jax.tree.leaves_with_path(state)}


def assert_same(a, b):
    a, b = leaves(a), leaves(b)
    assert a.keys() == b.keys()
    for name, x in a.items():
        assert x.dtype == b[name].dtype and x.tobytes() == b[name].tobytes(), name


def numbers(directory):
    """metrics.csv without the times."""
    columns = read_columns(Path(directory) / "metrics.csv")
    return {name: column.tolist() for name, column in columns.items() if not name.startswith("time/")}


def assert_same_numbers(a, b):
    a, b = numbers(a), numbers(b)
    assert a.keys() == b.keys() and a["steps"]
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def checkpoints(directory):
    return [int(path.stem) for path in sorted((Path(directory) / "checkpoints").glob("*.json"))]


class Misbehaving(gymnasium.Env):
    """CartPole's spaces; episodes of five steps; calls `at_step(steps taken by this process's copy)` in each step."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, at_step):
        self.at_step, self.total, self.time = at_step, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.uniform(-1.0, 1.0, 4).astype(np.float32), {}

    def step(self, action):
        self.total += 1
        self.time += 1
        reward = self.at_step(self.total)
        observation = self.np_random.uniform(-1.0, 1.0, 4).astype(np.float32)
        return observation, 1.0 if reward is None else reward, False, self.time == 5, {}


def well_behaved():
    """A Gymnasium environment that config.json cannot name."""
    return Misbehaving(lambda step: None)


def raises_at(last):
    """A factory: the environment raises in its `last`-th step."""

    def at_step(step):
        if step == last:
            raise RuntimeError("the gripper is stuck")

    return lambda: Misbehaving(at_step)


def nan_at(last):
    """A factory: the reward of the `last`-th step is not a number."""
    return lambda: Misbehaving(lambda step: float("nan") if step == last else 1.0)


def signals_at(last, *signals):
    """A factory: this process gets signals in the `last`-th step."""

    def at_step(step):
        if step == last:
            for number in signals:
                os.kill(os.getpid(), number)

    return lambda: Misbehaving(at_step)
