"""Every kind of observation and action that an algorithm claims, on the host, through training and evaluation."""

from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

from parnassus import training
from parnassus.algorithms.a2c import A2C
from parnassus.algorithms.a3c import A3C
from parnassus.algorithms.acktr import ACKTR
from parnassus.algorithms.advantage_actor_critic import AdvantageActorCritic
from parnassus.algorithms.ddpg import DDPG
from parnassus.algorithms.double_q import DoubleQ
from parnassus.algorithms.dpg import DPG
from parnassus.algorithms.dqn import DQN
from parnassus.algorithms.npg import NPG
from parnassus.algorithms.ppo import PPO
from parnassus.algorithms.q_actor_critic import QActorCritic
from parnassus.algorithms.reinforce import REINFORCE
from parnassus.algorithms.sac import SAC
from parnassus.algorithms.sac_discrete import DiscreteSAC
from parnassus.algorithms.td3 import TD3
from parnassus.algorithms.td_actor_critic import TDActorCritic
from parnassus.algorithms.trpo import TRPO
from parnassus.algorithms.vpg import VPG
from parnassus.collect import HostCollector
from parnassus.envs.gymnasium import GymnasiumEnvs
from parnassus.evaluation import evaluate

OBSERVATIONS = {
    "vector": spaces.Box(-1, 1, (3,), np.float64),
    "image": spaces.Box(0, 255, (12, 12, 2), np.uint8),
    "nested": spaces.Dict(
        {
            "image": spaces.Box(0, 255, (12, 12, 1), np.uint8),
            "rest": spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2))),
        }
    ),
    "classes": spaces.MultiDiscrete([2, 3]),
}
ACTIONS = {
    "discrete": spaces.Discrete(3, start=5),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
    "box": spaces.Box(np.array([0.0, -3.0], np.float32), np.array([10.0, 3.0], np.float32)),
    "matrix": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
}
OFF_POLICY: dict[str, Any] = {
    "num_steps": 4,
    "minibatch_size": 4,
    "replay_size": 64,
    "learning_starts": 8,
    "hidden_sizes": (8,),
}
ALGORITHMS: dict[str, Any] = {
    "ppo": PPO(num_steps=8, num_epochs=1, minibatch_size=8, hidden_sizes=(8,), normalize_observations=True),
    "a3c": A3C(hidden_sizes=(8,), exploration=2.0),
    "a2c": A2C(hidden_sizes=(8,), shared_network=True),
    "vpg": VPG(num_steps=8, minibatch_size=16, num_epochs=1, hidden_sizes=(8,)),
    "npg": NPG(num_steps=8, minibatch_size=8, num_epochs=1, hidden_sizes=(8,)),
    "trpo": TRPO(num_steps=8, minibatch_size=8, num_epochs=1, hidden_sizes=(8,), normalize_observations=True),
    "td-actor-critic": TDActorCritic(num_steps=4, hidden_sizes=(8,)),
    "q-actor-critic": QActorCritic(num_steps=4, hidden_sizes=(8,)),
    "advantage-actor-critic": AdvantageActorCritic(num_steps=4, hidden_sizes=(8,)),
    "acktr": ACKTR(num_steps=8, hidden_sizes=(8,), normalize_observations=True),
    "reinforce": REINFORCE(num_steps=8, hidden_sizes=(8,)),
    "sac": SAC(**OFF_POLICY),
    "ddpg": DDPG(**OFF_POLICY),
    "dpg": DPG(num_steps=4),
    "double-q": DoubleQ(**OFF_POLICY),
    "td3": TD3(**OFF_POLICY),
    "dqn": DQN(**OFF_POLICY, dueling=True),
    "sac-discrete": DiscreteSAC(**OFF_POLICY),
}


class Strict(gymnasium.Env):
    """Four steps an episode; refuses what is not an action of its space, and pays 1 for what is."""

    def __init__(self, observation: str, action: str) -> None:
        self.observation_space, self.action_space = OBSERVATIONS[observation], ACTIONS[action]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple:
        if not self.action_space.contains(np.asarray(action, self.action_space.dtype)):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.time += 1
        return self.observation_space.sample(), 1.0, False, self.time == 4, {}


CASES = [("ppo", o, "discrete") for o in OBSERVATIONS]
CASES += [("ppo", "vector", a) for a in ACTIONS if a != "discrete"]
# What reads observations and draws actions is shared: of the others, each has its hardest case.
CASES += [("acktr", "nested", "multi-discrete"), ("acktr", "image", "box"), ("reinforce", "image", "box")]
CASES += [("a3c", "classes", "multi-discrete"), ("a2c", "nested", "multi-binary"), ("vpg", "nested", "multi-discrete")]
CASES += [("npg", "nested", "multi-discrete"), ("trpo", "image", "box"), ("td-actor-critic", "nested", "matrix")]
CASES += [("q-actor-critic", "nested", "box"), ("advantage-actor-critic", "vector", "matrix")]
CASES += [
    ("sac", "nested", "matrix"),
    ("ddpg", "nested", "matrix"),
    ("td3", "image", "box"),
    ("dpg", "nested", "matrix"),
    ("double-q", "vector", "matrix"),
]
CASES += [("dqn", "image", "discrete"), ("dqn", "nested", "discrete"), ("sac-discrete", "classes", "discrete")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "observation", "action"),
    [pytest.param(*case, marks=[pytest.mark.long] * (case[0] not in ("ppo", "sac", "dqn"))) for case in CASES],
)
def test_it_trains_and_acts(name: str, observation: str, action: str) -> None:
    algorithm = ALGORITHMS[name]
    collector = HostCollector(GymnasiumEnvs(lambda: Strict(observation, action), 2))
    state = training.init(algorithm, collector, jax.random.key(0), 48)
    *_, chunk = training.train(algorithm, collector, state, 48)
    assert chunk.metrics["episode/return"] == 4.0
    result = evaluate(algorithm, algorithm.behavior(chunk.state.learner), collector.env, episodes=3)
    assert result.returns.tolist() == [4.0] * 3
