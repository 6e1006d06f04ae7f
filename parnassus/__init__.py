"""Parnassus: policy optimization in JAX, from dynamic programming to world models.

    import parnassus as pa
    run = pa.train(pa.PPO(), "CartPole-v1", steps=100_000, seed=0)
    print(run.evaluate(episodes=100))

Names are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from parnassus.advantages import GAE as GAE
    from parnassus.advantages import TD as TD
    from parnassus.advantages import NStep as NStep
    from parnassus.advantages import RewardsToGo as RewardsToGo
    from parnassus.algorithms.a2c import A2C as A2C
    from parnassus.algorithms.a3c import A3C as A3C
    from parnassus.algorithms.acktr import ACKTR as ACKTR
    from parnassus.algorithms.advantage_actor_critic import AdvantageActorCritic as AdvantageActorCritic
    from parnassus.algorithms.alphazero import AlphaZero as AlphaZero
    from parnassus.algorithms.ddpg import DDPG as DDPG
    from parnassus.algorithms.distillation import Distillation as Distillation
    from parnassus.algorithms.double_q import DoubleQ as DoubleQ
    from parnassus.algorithms.double_q_learning import DoubleQLearning as DoubleQLearning
    from parnassus.algorithms.dpg import DPG as DPG
    from parnassus.algorithms.dqn import DQN as DQN
    from parnassus.algorithms.dyna_q import DynaQ as DynaQ
    from parnassus.algorithms.expected_sarsa import ExpectedSARSA as ExpectedSARSA
    from parnassus.algorithms.mbpo import MBPO as MBPO
    from parnassus.algorithms.monte_carlo_control import MonteCarloControl as MonteCarloControl
    from parnassus.algorithms.monte_carlo_prediction import MonteCarloPrediction as MonteCarloPrediction
    from parnassus.algorithms.mpc import MPC as MPC
    from parnassus.algorithms.muzero import MuZero as MuZero
    from parnassus.algorithms.npg import NPG as NPG
    from parnassus.algorithms.off_policy_monte_carlo import OffPolicyMonteCarlo as OffPolicyMonteCarlo
    from parnassus.algorithms.pets import PETS as PETS
    from parnassus.algorithms.planet import PlaNet as PlaNet
    from parnassus.algorithms.ppo import PPO as PPO
    from parnassus.algorithms.prioritized_sweeping import PrioritizedSweeping as PrioritizedSweeping
    from parnassus.algorithms.q_actor_critic import QActorCritic as QActorCritic
    from parnassus.algorithms.q_learning import QLearning as QLearning
    from parnassus.algorithms.reinforce import REINFORCE as REINFORCE
    from parnassus.algorithms.sac import SAC as SAC
    from parnassus.algorithms.sac_discrete import DiscreteSAC as DiscreteSAC
    from parnassus.algorithms.sarsa import SARSA as SARSA
    from parnassus.algorithms.sarsa_lambda import SARSALambda as SARSALambda
    from parnassus.algorithms.td3 import TD3 as TD3
    from parnassus.algorithms.td_actor_critic import TDActorCritic as TDActorCritic
    from parnassus.algorithms.td_lambda import TDLambda as TDLambda
    from parnassus.algorithms.td_prediction import TDPrediction as TDPrediction
    from parnassus.algorithms.tree_backup import TreeBackup as TreeBackup
    from parnassus.algorithms.trpo import TRPO as TRPO
    from parnassus.algorithms.vpg import VPG as VPG
    from parnassus.envs.mdp import FiniteMDP as FiniteMDP
    from parnassus.evaluation import evaluate as evaluate
    from parnassus.exploration import GaussianNoise as GaussianNoise
    from parnassus.exploration import OrnsteinUhlenbeck as OrnsteinUhlenbeck
    from parnassus.kfac import KFAC as KFAC
    from parnassus.objectives import AdaptiveKL as AdaptiveKL
    from parnassus.objectives import Clip as Clip
    from parnassus.objectives import FixedKL as FixedKL
    from parnassus.objectives import Unclipped as Unclipped
    from parnassus.planning.cem import CEM as CEM
    from parnassus.planning.cem import MPPI as MPPI
    from parnassus.planning.mcts import PUCT as PUCT
    from parnassus.planning.mcts import Gumbel as Gumbel
    from parnassus.planning.random_shooting import RandomShooting as RandomShooting
    from parnassus.replay import Prioritized as Prioritized
    from parnassus.replay import Uniform as Uniform
    from parnassus.run import Run as Run
    from parnassus.run import Runs as Runs
    from parnassus.run import load as load
    from parnassus.run import load_seeds as load_seeds
    from parnassus.run import resume as resume
    from parnassus.run import train as train
    from parnassus.schedules import Linear as Linear
    from parnassus.simulator import Simulator as Simulator
    from parnassus.types import Algorithm as Algorithm
    from parnassus.types import BadInput as BadInput
    from parnassus.types import Collector as Collector
    from parnassus.types import ParnassusError as ParnassusError
    from parnassus.types import Spec as Spec
    from parnassus.types import Step as Step
    from parnassus.types import TrainingFailed as TrainingFailed
    from parnassus.types import TrainState as TrainState
    from parnassus.types import Transition as Transition
    from parnassus.types import pytree as pytree
    from parnassus.world_models.deterministic import Deterministic as Deterministic
    from parnassus.world_models.ensemble import Ensemble as Ensemble
    from parnassus.world_models.fitting import Fitting as Fitting
    from parnassus.world_models.inverse import InverseAction as InverseAction
    from parnassus.world_models.inverse import Predecessor as Predecessor
    from parnassus.world_models.learned_env import LearnedEnv as LearnedEnv

# Imported when first used: `parnassus --help` and `import parnassus` stay instant, JAX loads when it is needed.
_HOME = {
    "A2C": "algorithms.a2c",
    "A3C": "algorithms.a3c",
    "AdvantageActorCritic": "algorithms.advantage_actor_critic",
    "ACKTR": "algorithms.acktr",
    "DDPG": "algorithms.ddpg",
    "DPG": "algorithms.dpg",
    "DQN": "algorithms.dqn",
    "CEM": "planning.cem",
    "Distillation": "algorithms.distillation",
    "DoubleQ": "algorithms.double_q",
    "AlphaZero": "algorithms.alphazero",
    "MuZero": "algorithms.muzero",
    "PETS": "algorithms.pets",
    "MBPO": "algorithms.mbpo",
    "PlaNet": "algorithms.planet",
    "PUCT": "planning.mcts",
    "Gumbel": "planning.mcts",
    "Ensemble": "world_models.ensemble",
    "Deterministic": "world_models.deterministic",
    "Fitting": "world_models.fitting",
    "InverseAction": "world_models.inverse",
    "Predecessor": "world_models.inverse",
    "LearnedEnv": "world_models.learned_env",
    "MPC": "algorithms.mpc",
    "MPPI": "planning.cem",
    "RandomShooting": "planning.random_shooting",
    "Simulator": "simulator",
    "DiscreteSAC": "algorithms.sac_discrete",
    "NPG": "algorithms.npg",
    "PPO": "algorithms.ppo",
    "QActorCritic": "algorithms.q_actor_critic",
    "QLearning": "algorithms.q_learning",
    "REINFORCE": "algorithms.reinforce",
    "SAC": "algorithms.sac",
    "TD3": "algorithms.td3",
    "TDActorCritic": "algorithms.td_actor_critic",
    "TRPO": "algorithms.trpo",
    "DoubleQLearning": "algorithms.double_q_learning",
    "DynaQ": "algorithms.dyna_q",
    "ExpectedSARSA": "algorithms.expected_sarsa",
    "MonteCarloControl": "algorithms.monte_carlo_control",
    "MonteCarloPrediction": "algorithms.monte_carlo_prediction",
    "OffPolicyMonteCarlo": "algorithms.off_policy_monte_carlo",
    "PrioritizedSweeping": "algorithms.prioritized_sweeping",
    "SARSA": "algorithms.sarsa",
    "SARSALambda": "algorithms.sarsa_lambda",
    "TDLambda": "algorithms.td_lambda",
    "TDPrediction": "algorithms.td_prediction",
    "TreeBackup": "algorithms.tree_backup",
    "VPG": "algorithms.vpg",
    **dict.fromkeys(["GAE", "NStep", "RewardsToGo", "TD"], "advantages"),
    "evaluate": "evaluation",
    "FiniteMDP": "envs.mdp",
    **dict.fromkeys(["GaussianNoise", "OrnsteinUhlenbeck"], "exploration"),
    **dict.fromkeys(["AdaptiveKL", "Clip", "FixedKL", "Unclipped"], "objectives"),
    "KFAC": "kfac",
    **dict.fromkeys(["Prioritized", "Uniform"], "replay"),
    **dict.fromkeys(["Run", "Runs", "load", "load_seeds", "resume", "train"], "run"),
    "Linear": "schedules",
    **dict.fromkeys(
        ["Algorithm", "BadInput", "Collector", "ParnassusError", "Spec", "Step", "TrainingFailed", "TrainState"],
        "types",
    ),
    **dict.fromkeys(["Transition", "pytree"], "types"),
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"parnassus.{_HOME[name]}"), name)
    try:
        return importlib.import_module(f"parnassus.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"parnassus.{name}":
            raise
        raise AttributeError(f"module 'parnassus' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
