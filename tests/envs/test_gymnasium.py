"""Gymnasium environments on the host: true successors, 32 bits, seeds, processes, errors."""

import functools
import os
import signal

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.envs.gymnasium import GymnasiumEnvs, did_you_mean, in_single_precision, make_one
from parnassus.types import BadInput


class Tape(gymnasium.Env):
    """Step t of episode e shows the number 10 e + t; an episode lasts 2 + seed steps and ends in turn by either flag.

    The reward is a third of the action, and the observation array is one buffer that every call writes into.
    """

    action_space = spaces.Discrete(4)
    observation_spaces = {  # noqa: RUF012
        "vector": spaces.Box(-np.inf, np.inf, (2,), np.float64),
        "image": spaces.Box(0, 255, (4, 5, 3), np.uint8),
        "discrete": spaces.Discrete(100),
        "multidiscrete": spaces.MultiDiscrete([100, 200]),
        "multibinary": spaces.MultiBinary(7),
    }
    observation_spaces["dict"] = spaces.Dict(
        {"z": observation_spaces["vector"], "a": spaces.Dict({"n": spaces.Discrete(100)})}
    )
    observation_spaces["tuple"] = spaces.Tuple([observation_spaces["image"], observation_spaces["discrete"]])

    def __init__(self, kind="vector"):
        self.observation_space = self.observation_spaces[kind]
        self.kind, self.episode, self.buffers = kind, -1, {}

    def show(self, kind, number):
        if kind in ("vector", "image"):
            space = self.observation_spaces[kind]
            buffer = self.buffers.setdefault(kind, np.zeros(space.shape, space.dtype))
            buffer[...] = number
            return buffer
        if kind == "dict":
            return {"z": self.show("vector", number), "a": {"n": self.show("discrete", number)}}
        if kind == "tuple":
            return self.show("image", number), self.show("discrete", number)
        return {
            "discrete": np.int64(number),
            "multidiscrete": np.array([number, 2 * number]),
            "multibinary": np.array([(number >> bit) & 1 for bit in range(7)], np.int8),
        }[kind]

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.length, self.episode = 2 + seed, -1
        self.episode, self.time = self.episode + 1, 0
        return self.show(self.kind, 10 * self.episode), {"noise": object()}

    def step(self, action):
        self.time += 1
        ended, even = self.time == self.length, self.episode % 2 == 0
        return self.show(self.kind, 10 * self.episode + self.time), action / 3, ended and even, ended and not even, {}


def expected(kind, numbers):
    """The batch of observations that shows `numbers` [N]."""
    numbers = np.asarray(numbers)
    match kind:
        case "vector":
            return np.repeat(numbers[:, None], 2, 1).astype(np.float32)
        case "image":
            return np.broadcast_to(numbers[:, None, None, None], (len(numbers), 4, 5, 3)).astype(np.uint8)
        case "discrete":
            return numbers.astype(np.int32)
        case "multidiscrete":
            return np.stack([numbers, 2 * numbers], 1).astype(np.int32)
        case "multibinary":
            return (numbers[:, None] >> np.arange(7) & 1).astype(np.int8)
        case "dict":
            return {"z": expected("vector", numbers), "a": {"n": expected("discrete", numbers)}}
    return expected("image", numbers), expected("discrete", numbers)


def same(actual, expected):
    if isinstance(expected, dict):
        return actual.keys() == expected.keys() and all(same(actual[k], expected[k]) for k in expected)
    if isinstance(expected, tuple):
        return all(same(a, e) for a, e in zip(actual, expected, strict=True))
    return actual.dtype == expected.dtype and np.array_equal(actual, expected)


def follow_the_tape(envs, kind):
    """Twelve steps of three environments whose episodes have lengths 2, 3 and 4; what was returned is checked last."""
    lengths = np.array([2, 3, 4])
    seen = [(envs.reset([0, 1, 2]), expected(kind, [0, 0, 0]))]
    episode, time = np.zeros(3, int), np.zeros(3, int)
    for t in range(12):
        actions = np.array([t % 4, 1, 2])
        after = envs.step(actions)
        time += 1
        done, even = time == lengths, episode % 2 == 0
        assert after.reward.dtype == np.float32
        np.testing.assert_allclose(after.reward, actions / 3, rtol=1e-6)
        np.testing.assert_array_equal(after.terminated, done & even)
        np.testing.assert_array_equal(after.truncated, done & ~even)
        seen.append((after.next_observation, expected(kind, 10 * episode + time)))
        episode, time = episode + done, np.where(done, 0, time)
        seen.append((after.observation, expected(kind, 10 * episode + time)))
    assert episode.tolist() == [6, 4, 3]
    assert all(same(*pair) for pair in seen)


@pytest.mark.parametrize("kind", Tape.observation_spaces)
def test_true_successors_of_every_kind_of_space(kind):
    """All arrays are still what they were when they were returned, though the environment reuses its buffer."""
    envs = GymnasiumEnvs(Tape, 3, kind=kind)
    assert envs.action_space == Tape.action_space
    assert envs.observation_space == in_single_precision(Tape.observation_spaces[kind])
    follow_the_tape(envs, kind)
    follow_the_tape(envs, kind)  # and the same seeds bring the same future
    envs.close()


@pytest.fixture(scope="module")
def workers():
    """Three Tapes with Dict observations, one process each, made by a function that plain pickle refuses."""
    envs = GymnasiumEnvs(lambda: Tape("dict"), 3, asynchronous=True)
    yield envs
    envs.close()


def test_asynchronous_environments_follow_the_same_tape(workers):
    follow_the_tape(workers, "dict")
    follow_the_tape(workers, "dict")


def test_control_c_is_for_the_parent(workers):
    workers.reset([0, 1, 2])
    for process in workers._envs.envs.processes:
        os.kill(process.pid, signal.SIGINT)
    workers.step(np.zeros(3, int))


def test_gymnasium_ids_seeds_and_limits():
    """CartPole for 300 steps: equal to single environments stepped and reset by hand."""
    actions = np.random.default_rng(0).integers(0, 2, (300, 2))
    envs = GymnasiumEnvs("CartPole-v1", 2, max_episode_steps=30)
    singles = [gymnasium.make("CartPole-v1", max_episode_steps=30) for _ in range(2)]
    current = np.stack([env.reset(seed=seed)[0] for env, seed in zip(singles, (7, 8), strict=True)])
    np.testing.assert_array_equal(envs.reset([7, 8]), current)
    ended = np.zeros(2, int)
    for action in actions:
        after = envs.step(action)
        for i, env in enumerate(singles):
            observation, reward, terminated, truncated, _ = env.step(action[i])
            np.testing.assert_array_equal(after.next_observation[i], observation)
            assert (after.reward[i], after.terminated[i], after.truncated[i]) == (reward, terminated, truncated)
            if terminated or truncated:
                observation, _ = env.reset()
            np.testing.assert_array_equal(after.observation[i], observation)
        ended += [after.terminated.sum(), after.truncated.sum()]
    assert (ended > 0).all()


class LocalError(Exception):
    """Its constructor takes more than its message, so that the usual way between processes fails."""

    def __init__(self, code, *, place):
        super().__init__(f"{code} at {place}")


class Breaks(Tape):
    """Raises on action 3, in the way that its `kind` says."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def step(self, action):
        if action == 3:
            if self.how == "exit":
                os._exit(1)
            raise KeyError("lost") if self.how == "plain" else LocalError(7, place="home")
        return super().step(action)


@pytest.mark.parametrize("how", ["plain", "local"])
def test_an_exception_passes_through(how):
    envs = GymnasiumEnvs(Breaks, 2, how=how)
    envs.reset([0, 0])
    with pytest.raises(KeyError if how == "plain" else LocalError):
        envs.step(np.array([0, 3]))
    assert envs.reset([0, 0]).shape == (2, 2)
    envs.close()


@pytest.mark.filterwarnings("ignore:.*ERROR")  # Gymnasium prints the worker's traceback as a warning
@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("plain", KeyError, "lost"),
        ("local", RuntimeError, "LocalError: 7 at home"),
        ("exit", (EOFError, OSError), None),
    ],
)
def test_no_worker_hangs_after_an_exception(how, error, words):
    envs = GymnasiumEnvs(functools.partial(Breaks, how), 2, asynchronous=True)
    envs.reset([0, 0])
    workers = envs._envs.envs.processes
    with pytest.raises(error, match=words):
        envs.step(np.array([0, 3]))
    assert not any(process.is_alive() for process in workers)
    if how == "exit":  # once is enough: a start takes a second
        assert envs.reset([0, 0]).shape == (2, 2)
        envs.step(np.array([0, 0]))
    envs.close()
    envs.close()


def needs(package):
    raise gymnasium.error.DependencyNotInstalled(f'X is not installed, run `pip install "gymnasium[{package}]"`')


@pytest.fixture
def registered():
    gymnasium.register("NeedsBox2d-v0", entry_point=lambda: needs("box2d"))
    gymnasium.register("NeedsModule-v0", entry_point="no_such_module_here:Env")
    yield
    for name in ("NeedsBox2d-v0", "NeedsModule-v0"):
        del gymnasium.registry[name]


@pytest.mark.filterwarnings("ignore:.*is out of date")
@pytest.mark.parametrize(
    ("env", "options", "words"),
    [
        ("CartPol-v1", {}, "unknown Gymnasium environment 'CartPol-v1'; did you mean CartPole-v1"),
        ("CartPole-v7", {}, "did you mean CartPole-v1"),
        ("cartpole-v1", {}, "did you mean CartPole-v1"),
        ("Taxi-v3", {}, "did you mean Taxi-v4"),
        ("nowhere/Quux-v7", {}, "parnassus list environments"),
        ("CartPole-v1", {"gravity": 3}, "CartPole-v1 does not know an option.*gravity"),
        ("NeedsBox2d-v0", {}, r'NeedsBox2d-v0 needs a package.*pip install "parnassus\[box2d\]"'),
        ("NeedsModule-v0", {}, "NeedsModule-v0 cannot be made: No module named"),
        (dict, {}, "should make a gymnasium.Env, but made a dict"),
    ],
)
def test_bad_input_is_said_in_one_sentence(registered, env, options, words):
    with pytest.raises(BadInput, match=words) as error:
        GymnasiumEnvs(env, 2, **options)
    assert "\n" not in str(error.value)


def test_atari_without_its_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ale_py", None)
    with pytest.raises(BadInput, match=r'ALE/Pong-v5 needs.*"parnassus\[atari\]"'):
        make_one("ALE/Pong-v5")


def test_no_environments_are_refused():
    with pytest.raises(BadInput, match="num_envs must be at least 1, not 0"):
        GymnasiumEnvs("CartPole-v1", 0)


def test_single_precision_spaces():
    space = spaces.Dict({"x": spaces.Box(-1.7e308, np.inf, (2,), np.float64), "n": spaces.Box(0, 2**40, (), np.int64)})
    single = in_single_precision(space)
    assert single["x"] == spaces.Box(-np.inf, np.inf, (2,), np.float32)
    assert single["n"] == spaces.Box(0, 2**31 - 1, (), np.int32)


def test_close_matches():
    assert did_you_mean("hopper-v5", ["Hopper-v5", "Walker-v5"]) == "did you mean Hopper-v5?"
    assert "parnassus list environments" in did_you_mean("qqq", ["Hopper-v5"])
