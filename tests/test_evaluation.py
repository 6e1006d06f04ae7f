"""Episodes are counted per environment, whole, and without exploration."""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.envs.classic import CartPole
from parnassus.envs.gymnasium import GymnasiumEnvs
from parnassus.envs.wrap import as_gymnasium
from parnassus.evaluation import evaluate
from parnassus.types import BadInput, TrainingFailed, pytree
from tests.probe_envs import Probe


@pytree
class Constant:
    """Always the same action; a random one if it were asked to explore."""

    action: int = 1
    num_steps: int = 1

    def init(self, key: Any, spec: Any) -> tuple:
        return ()

    def behavior(self, learner: tuple) -> tuple:
        return ()

    def learn(self, learner: tuple, trajectory: Any, key: Any) -> tuple:
        return (), {}

    def initial_memory(self, spec: Any) -> Any:
        return jnp.zeros(spec.num_envs, jnp.int32)

    def act(self, behavior: Any, memory: Any, observation: Any, key: Any, explore: bool) -> Any:
        if explore:
            return jax.random.randint(key, memory.shape, 0, 2), memory, {}
        return jnp.full(memory.shape, self.action), memory + 1, {}


class Uneven(gymnasium.Env):
    """Episodes of length 2 and 10 in turns, reward 1: taking the first that end would see too many short ones."""

    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32), gymnasium.spaces.Discrete(2)
    length = 10

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple:
        super().reset(seed=seed)
        self.length, self.time = 12 - self.length, 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple:
        self.time += 1
        return np.zeros(1, np.float32), 1.0, self.time == self.length, False, {}


def test_every_environment_plays_its_share() -> None:
    result = evaluate(Constant(), (), GymnasiumEnvs(Uneven, 3), episodes=10)
    assert sorted(result.returns.tolist()) == [2.0] * 6 + [10.0] * 4  # 4, 3 and 3 episodes, each from a short one
    assert result.lengths.tolist() == result.returns.tolist()


@pytest.mark.parametrize(
    "make", [lambda e: e, lambda e: GymnasiumEnvs(lambda: as_gymnasium(e), 2)], ids=["jax", "host"]
)
def test_no_exploration_and_whole_episodes(make: Any) -> None:
    right = evaluate(Constant(1), (), make(Probe("action")), episodes=5)
    wrong = evaluate(Constant(0), (), make(Probe("action")), episodes=5)
    assert (right.returns.tolist(), wrong.returns.tolist()) == ([1.0] * 5, [-1.0] * 5)
    cut = evaluate(Constant(1), (), make(Probe("endless")), episodes=7)
    assert cut.returns.tolist() == [5.0] * 7


def test_episodes_longer_than_a_compiled_block() -> None:
    @pytree
    class Balance(Constant):
        def act(self, behavior: Any, memory: Any, observation: Any, key: Any, explore: bool) -> Any:
            return (observation[:, 2] + observation[:, 3] > 0).astype(jnp.int32), memory, {}

    result = evaluate(Balance(), (), CartPole(), episodes=4)
    assert result.lengths.max() > 128
    assert result.returns.tolist() == result.lengths.tolist()
    low, high = result.interval
    assert low <= result.mean <= high


def test_the_same_seed_is_the_same_evaluation() -> None:
    runs = [evaluate(Constant(), (), CartPole(), episodes=20, seed=seed).returns.tolist() for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_bad_requests() -> None:
    with pytest.raises(BadInput, match="episodes must be at least 1, not 0"):
        evaluate(Constant(), (), CartPole(), episodes=0)
    with pytest.raises(TrainingFailed, match="did not end within 3 steps"):
        evaluate(Constant(), (), GymnasiumEnvs("CartPole-v1", 1), episodes=1, max_episode_steps=3)


@pytest.mark.parametrize("on_host", [False, True])
def test_it_explores_when_asked(on_host: bool) -> None:
    """Pushing always to one side ends sooner than pushing at random."""
    env = GymnasiumEnvs("CartPole-v1", num_envs=8) if on_host else CartPole()
    constant, random = (evaluate(Constant(), (), env, episodes=40, explore=explore) for explore in (False, True))
    assert constant.mean < 12 < random.mean
