"""Every algorithm on every probe environment that it can act in, with numbers; the time-limit conformance test."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import training
from parnassus.algorithms.a2c import A2C
from parnassus.algorithms.a3c import A3C
from parnassus.algorithms.acktr import ACKTR
from parnassus.algorithms.advantage_actor_critic import AdvantageActorCritic
from parnassus.algorithms.alphazero import AlphaZero
from parnassus.algorithms.ddpg import DDPG
from parnassus.algorithms.double_q import DoubleQ
from parnassus.algorithms.double_q_learning import DoubleQLearning
from parnassus.algorithms.dpg import DPG
from parnassus.algorithms.dqn import DQN
from parnassus.algorithms.dyna_q import DynaQ
from parnassus.algorithms.expected_sarsa import ExpectedSARSA
from parnassus.algorithms.mbpo import MBPO
from parnassus.algorithms.monte_carlo_control import MonteCarloControl
from parnassus.algorithms.muzero import MuZero
from parnassus.algorithms.npg import NPG
from parnassus.algorithms.off_policy_monte_carlo import OffPolicyMonteCarlo
from parnassus.algorithms.pets import PETS
from parnassus.algorithms.ppo import PPO
from parnassus.algorithms.prioritized_sweeping import PrioritizedSweeping
from parnassus.algorithms.q_actor_critic import QActorCritic
from parnassus.algorithms.q_learning import QLearning
from parnassus.algorithms.reinforce import REINFORCE
from parnassus.algorithms.sac import SAC
from parnassus.algorithms.sac_discrete import DiscreteSAC
from parnassus.algorithms.sarsa import SARSA
from parnassus.algorithms.sarsa_lambda import SARSALambda
from parnassus.algorithms.td3 import TD3
from parnassus.algorithms.td_actor_critic import TDActorCritic
from parnassus.algorithms.td_lambda import TDLambda
from parnassus.algorithms.td_prediction import TDPrediction
from parnassus.algorithms.tree_backup import TreeBackup
from parnassus.algorithms.trpo import TRPO
from parnassus.algorithms.vpg import VPG
from parnassus.collect import HostCollector, ScanCollector
from parnassus.envs.gymnasium import GymnasiumEnvs
from parnassus.envs.wrap import as_gymnasium
from parnassus.exploration import GaussianNoise
from parnassus.planning.cem import CEM
from parnassus.planning.mcts import PUCT, Gumbel
from parnassus.replay import Prioritized
from parnassus.schedules import Linear
from parnassus.simulator import Simulator
from parnassus.types import Spec
from parnassus.world_models.ensemble import Ensemble
from parnassus.world_models.fitting import Fitting
from tests.probe_envs import Probe, State

GAMMA = 0.8

OFF_POLICY: dict[str, Any] = {
    "learning_rate": 3e-3,
    "num_steps": 4,
    "minibatch_size": 64,
    "replay_size": 2_000,
    "learning_starts": 64,
    "discount": GAMMA,
    "hidden_sizes": (32,),
}
MODEL = Ensemble(2, (32,), fitting=Fitting(3e-3, minibatch_size=64, steps_per_look=20, max_looks=20))
# What each algorithm needs to learn a probe in a second or two, and how to ask it for V(o).
SETTINGS: dict[str, tuple[Any, int]] = {  # name -> (algorithm, environment steps)
    "ppo": (
        PPO(learning_rate=3e-3, num_steps=16, num_epochs=4, minibatch_size=32, discount=GAMMA, hidden_sizes=(16,)),
        8_000,
    ),
    "reinforce": (REINFORCE(learning_rate=1e-2, num_steps=16, discount=GAMMA, hidden_sizes=(16,)), 16_000),
    "sac": (
        SAC(
            learning_rate=3e-3,
            num_steps=4,
            minibatch_size=64,
            replay_size=2_000,
            learning_starts=64,
            discount=GAMMA,
            tau=0.05,
            temperature=1e-4,  # so small that soft values are values
            learn_temperature=False,
            hidden_sizes=(32,),
        ),
        6_000,
    ),
    "mbpo": (
        MBPO(
            SAC(
                # All steps are kept, the random ones too: a model of the policy's own would know no other actions.
                **{**OFF_POLICY, "num_steps": 32, "learning_starts": 256, "replay_size": 4_000},
                updates_per_step=2,
                tau=0.05,
                temperature=1e-4,
                learn_temperature=False,
            ),
            MODEL,
            horizon=2,
            rollouts=128,
            imagined_size=512,
        ),
        3_840,
    ),
    # PETS has no values that could be asked for: of what it acts by, `ending` and `endless` are questions to its model.
    "pets": (
        PETS(
            CEM(horizon=2, candidates=64, iterations=4, elites=8),
            MODEL,
            num_steps=16,
            learning_starts=128,
            replay_size=1_000,
        ),
        512,
    ),
    "sac-discrete": (
        DiscreteSAC(
            **{**OFF_POLICY, "hidden_sizes": (16,)}, num_updates=4, tau=0.05, temperature=1e-4, learn_temperature=False
        ),
        6_000,
    ),
    "dqn": (DQN(**OFF_POLICY, num_updates=4, target_period=50, epsilon=0.5), 6_000),
    "dqn-all": (
        DQN(
            **OFF_POLICY,
            num_updates=4,
            target_period=50,
            epsilon=0.5,
            double=True,
            loss="huber",
            n=3,
            dueling=True,
            sampling=Prioritized(),
        ),
        8_000,
    ),
    "dpg": (DPG(Linear(1e-3), Linear(3e-2), discount=GAMMA, hidden_sizes=(16,)), 16_000),
    "ddpg": (DDPG(**OFF_POLICY, critic_learning_rate=3e-3, tau=0.05, noise=GaussianNoise(0.5)), 6_000),
    "double-q": (DoubleQ(**OFF_POLICY, critic_learning_rate=3e-3, tau=0.05, noise=GaussianNoise(0.5)), 6_000),
    "td3": (TD3(**OFF_POLICY, critic_learning_rate=3e-3, tau=0.05, noise=GaussianNoise(0.5)), 6_000),
    "a2c": (A2C(learning_rate=1e-2, discount=GAMMA, hidden_sizes=(16,)), 16_000),
    "a3c": (A3C(learning_rate=1e-2, discount=GAMMA, hidden_sizes=(16,)), 16_000),
    "a2c-shared": (A2C(learning_rate=1e-2, discount=GAMMA, hidden_sizes=(16,), shared_network=True), 16_000),
    "vpg": (
        VPG(
            learning_rate=1e-2,
            value_learning_rate=1e-2,
            num_steps=16,
            minibatch_size=32,
            discount=GAMMA,
            hidden_sizes=(16,),
        ),
        12_000,
    ),
    "npg": (
        NPG(max_kl=0.1, value_learning_rate=1e-2, num_steps=16, minibatch_size=32, discount=GAMMA, hidden_sizes=(16,)),
        8_000,
    ),
    "trpo": (
        TRPO(max_kl=0.1, value_learning_rate=1e-2, num_steps=16, minibatch_size=32, discount=GAMMA, hidden_sizes=(16,)),
        8_000,
    ),
    "acktr": (ACKTR(num_steps=16, max_kl=0.01, discount=GAMMA, hidden_sizes=(16,)), 12_000),
    "td-actor-critic": (TDActorCritic(3e-3, 1e-2, discount=GAMMA, hidden_sizes=(16,)), 12_000),
    "q-actor-critic": (QActorCritic(3e-3, 1e-2, discount=GAMMA, hidden_sizes=(16,)), 12_000),
    "advantage-actor-critic": (AdvantageActorCritic(3e-3, 1e-2, discount=GAMMA, hidden_sizes=(16,)), 12_000),
    "alphazero": (
        AlphaZero(
            search=PUCT(num_simulations=4),
            learning_rate=1e-2,
            num_steps=16,
            num_updates=8,
            minibatch_size=32,
            replay_size=512,
            discount=GAMMA,
            num_samples=8,
            hidden_sizes=(16,),
        ),
        4_000,
    ),
    "muzero": (
        MuZero(
            search=Gumbel(num_simulations=4),
            learning_rate=1e-2,
            num_steps=16,
            num_updates=8,
            minibatch_size=32,
            replay_size=512,
            learning_starts=0,
            discount=GAMMA,
            n=3,
            tau=0.05,
            num_unrolled=2,
            num_samples=8,
            support_size=3,
            state_size=8,
            hidden_sizes=(16,),
        ),
        6_000,
    ),
}
TABULAR: dict[str, Any] = {
    "q-learning": QLearning(0.2, num_steps=8, discount=GAMMA),
    "double-q-learning": DoubleQLearning(0.2, num_steps=8, discount=GAMMA, epsilon=0.5),
    "sarsa": SARSA(0.2, n=3, discount=GAMMA),
    "expected-sarsa": ExpectedSARSA(0.2, num_steps=8, discount=GAMMA),
    "sarsa-lambda": SARSALambda(0.2, discount=GAMMA),
    "tree-backup": TreeBackup(0.2, n=3, num_steps=8, discount=GAMMA),
    "dyna-q": DynaQ(0.2, 2, discount=GAMMA),
    "prioritized-sweeping": PrioritizedSweeping(0.2, discount=GAMMA),
    "td-prediction": TDPrediction(0.05, n=3, discount=GAMMA),
    "td-lambda": TDLambda(0.05, discount=GAMMA),
    # Nothing is bootstrapped here: of values under time limits nothing is asked.
    "monte-carlo": MonteCarloControl(num_steps=8, longest=10, discount=GAMMA),
    "off-policy-monte-carlo": OffPolicyMonteCarlo(num_steps=8, longest=10, discount=GAMMA, epsilon=0.5),
}
SETTINGS |= {name: (algorithm, 4_000) for name, algorithm in TABULAR.items()}
# Near relatives of others here, which `make test` leaves to `make test-all`.
RELATIVES = ("a2c-shared", "a3c", "npg", "td-actor-critic", "advantage-actor-critic", "dqn", "ddpg", "double-q", "mbpo")
# Host collectors give the same trajectories (tests/test_collect.py), so these stand for the others of their family.
ON_HOST = ("ppo", "sac", "dqn-all", "td3", "sarsa", "td-prediction")
IN_SIMULATORS = ("alphazero",)  # no host environment is one
N = 4


def ppo_value(algorithm: PPO, learner: Any, observation: Any, key: Any) -> Any:
    return learner.value(learner.encoder(observation))


def mean_action_value(algorithm: QActorCritic, learner: Any, observation: Any, key: Any) -> Any:
    encoded = learner.encoder(observation)
    probability = jax.nn.softmax(learner.policy(encoded).logits)
    each = [learner.critic(encoded, jnp.full(len(encoded), action)) for action in range(2)]
    return (probability * jnp.stack(each, axis=-1)).sum(-1)


def sac_value(algorithm: SAC, learner: Any, observation: Any, key: Any) -> Any:
    encoded = learner.encoder(observation)
    return learner.critics(encoded, learner.policy(encoded).mode()).min(-1)


def mbpo_value(algorithm: MBPO, learner: Any, observation: Any, key: Any) -> Any:
    return sac_value(algorithm.sac, learner.agent, observation, key)


def greedy_value(algorithm: Any, learner: Any, observation: Any, key: Any) -> Any:
    return algorithm.greedy_value(learner, learner.encoder(observation))


def discrete_sac_value(algorithm: DiscreteSAC, learner: Any, observation: Any, key: Any) -> Any:
    encoded = learner.encoder(observation)
    return learner.critics[0](encoded).max(-1)


def q_value(algorithm: Any, learner: Any, observation: Any, key: Any) -> Any:
    return algorithm.behavior(learner).q[observation].max(-1)


def v_value(algorithm: Any, learner: Any, observation: Any, key: Any) -> Any:
    return learner.v[observation]


def muzero_value(algorithm: MuZero, learner: Any, observation: Any, key: Any) -> Any:
    return algorithm.value(learner.model, learner.encoder, observation)


VALUE: dict[str, Callable] = {
    **dict.fromkeys(["a2c", "a2c-shared", "a3c", "vpg", "npg", "trpo", "acktr"], ppo_value),
    **dict.fromkeys(["td-actor-critic", "advantage-actor-critic", "dpg"], ppo_value),
    "q-actor-critic": mean_action_value,
    "ppo": ppo_value,
    "sac": sac_value,
    "mbpo": mbpo_value,
    **dict.fromkeys(["dqn", "dqn-all", "ddpg", "double-q", "td3"], greedy_value),
    "sac-discrete": discrete_sac_value,
    **dict.fromkeys(["q-learning", "double-q-learning", "sarsa", "expected-sarsa", "sarsa-lambda"], q_value),
    **dict.fromkeys(["tree-backup", "dyna-q", "prioritized-sweeping"], q_value),
    **dict.fromkeys(["td-prediction", "td-lambda"], v_value),
    "alphazero": ppo_value,
    "muzero": muzero_value,
}
VALUE_PROBES = {  # V(shown -1), V(shown +1); None: never seen
    "constant": (1.0, None),
    "observation": (-1.0, 1.0),
    "delayed": (GAMMA, 1.0),
    "ending": (1.0 + GAMMA, 1.0),
    "endless": (1.0 / (1.0 - GAMMA), None),
}


def make_probe(name: str, kind: Any, continuous: bool) -> Probe:
    return Probe(
        kind,
        continuous=continuous or name in ("sac", "dpg", "ddpg", "double-q", "td3", "mbpo"),
        tabular=name in TABULAR,
    )


def cases(*all_of_them: Any) -> list[Any]:
    """(name, ...) each; those of relatives are left to `make test-all`."""
    return [pytest.param(*case, marks=[pytest.mark.long] * (case[0] in RELATIVES)) for case in all_of_them]


def train_on(name: str, probe: Probe, collector: str) -> Any:
    algorithm, steps = SETTINGS[name]
    if name in IN_SIMULATORS:
        algorithm = dataclasses.replace(algorithm, simulator=Simulator(probe))
        collect = ScanCollector(algorithm.simulator, N)
    elif collector == "scan":
        collect = ScanCollector(probe, N)
    else:
        collect = HostCollector(GymnasiumEnvs(lambda: as_gymnasium(probe), N))
        steps //= 2
    state = training.init(algorithm, collect, jax.random.key(1), steps)
    for chunk in training.train(algorithm, collect, state, steps):  # noqa: B007
        pass
    if collector == "host":
        collect.close()
    return algorithm, chunk.state.learner


@pytest.mark.parametrize(
    ("name", "kind"),
    cases(
        *(
            (name, kind)
            for name in VALUE
            for kind in VALUE_PROBES
            if name not in TABULAR or kind in ("delayed", "endless")  # what the others ask of a table, these ask too
        )
    ),
)
def test_values(name: str, kind: str) -> None:
    probe = make_probe(name, kind, continuous=False)
    algorithm, learner = train_on(name, probe, "scan")
    check_values(name, kind, probe, algorithm, learner)


@pytest.mark.parametrize(
    ("name", "kind"),
    cases(*((name, kind) for name in VALUE for kind in ("endless", "ending") if name in ON_HOST)),
)
def test_time_limits_are_not_terminations_on_the_host_either(name: str, kind: str) -> None:
    probe = make_probe(name, kind, continuous=False)
    algorithm, learner = train_on(name, probe, "host")
    check_values(name, kind, probe, algorithm, learner)


def check_values(name: str, kind: str, probe: Probe, algorithm: Any, learner: Any) -> None:
    shown = probe.observe(jnp.arange(2))
    values = np.asarray(VALUE[name](algorithm, learner, shown, jax.random.key(0)))
    for value, wanted in zip(values, VALUE_PROBES[kind], strict=True):
        if wanted is not None:
            assert value == pytest.approx(wanted, rel=0.1, abs=0.1)


ACTS_IN = [  # (algorithm, continuous actions)
    ("ppo", False),
    ("ppo", True),
    ("reinforce", False),
    ("reinforce", True),
    ("a2c", False),
    ("a2c", True),
    ("a2c-shared", True),
    ("a3c", False),
    ("a3c", True),
    ("vpg", False),
    ("vpg", True),
    ("td-actor-critic", False),
    ("td-actor-critic", True),
    # Not with real actions: what a Q network says beyond the actions it has seen leads a Gaussian's mean astray.
    ("q-actor-critic", False),
    ("advantage-actor-critic", False),
    *[(name, continuous) for name in ("npg", "trpo", "acktr") for continuous in (False, True)],
    ("sac", True),
    ("dpg", True),
    ("ddpg", True),
    ("double-q", True),
    ("td3", True),
    ("mbpo", True),
    ("pets", True),
    ("sac-discrete", False),
    ("dqn", False),
    ("dqn-all", False),
    *[(name, continuous) for name in ("alphazero", "muzero") for continuous in (False, True)],
    *[(name, False) for name in TABULAR if name not in ("td-prediction", "td-lambda")],
]


@pytest.mark.parametrize(
    ("name", "continuous", "kind"),
    cases(*((*case, kind) for case in ACTS_IN for kind in ("action", "conditional"))),
)
def test_actions(name: str, continuous: bool, kind: str) -> None:
    probe = make_probe(name, kind, continuous)
    algorithm, learner = train_on(name, probe, "scan")
    shown = probe.observe(jnp.arange(2))
    behavior = algorithm.behavior(learner)
    memory = algorithm.initial_memory(Spec(probe.observation_space, probe.action_space, 2))
    if name in IN_SIMULATORS:
        states = State(jnp.arange(2, dtype=jnp.int32), jnp.zeros(2, jnp.int32))
        shown = {"observation": shown, "state": tuple(jax.tree.leaves(states))}
    action, _, _ = jax.jit(algorithm.act, static_argnums=4)(behavior, memory, shown, jax.random.key(0), False)
    if continuous:  # the policy acts in [-1, 1], which the environment's [-2, 2] is twice of
        wanted = {"action": [0.5], "conditional": [-0.5, 0.5]}[kind]
        # A tree search takes the best of a few actions that its policy drew: as near as these happen to be.
        tolerance = 0.3 if name in ("alphazero", "muzero") else 0.12
        np.testing.assert_allclose(np.asarray(action)[: len(wanted), 0], wanted, atol=tolerance)
    else:
        wanted = {"action": [1], "conditional": [0, 1]}[kind]
        assert np.asarray(action)[: len(wanted)].tolist() == wanted
