"""The loop: resuming is exact, seeds are independent, floats are data, nothing is hidden in objects."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from parnassus import checkpoint, training
from parnassus.advantages import NStep
from parnassus.algorithms.a2c import A2C
from parnassus.algorithms.a3c import A3C
from parnassus.algorithms.acktr import ACKTR
from parnassus.algorithms.advantage_actor_critic import AdvantageActorCritic
from parnassus.algorithms.ddpg import DDPG
from parnassus.algorithms.double_q import DoubleQ
from parnassus.algorithms.double_q_learning import DoubleQLearning
from parnassus.algorithms.dpg import DPG
from parnassus.algorithms.dqn import DQN
from parnassus.algorithms.dyna_q import DynaQ
from parnassus.algorithms.expected_sarsa import ExpectedSARSA
from parnassus.algorithms.mbpo import MBPO
from parnassus.algorithms.monte_carlo_control import MonteCarloControl
from parnassus.algorithms.monte_carlo_prediction import MonteCarloPrediction
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
from parnassus.envs.classic import CartPole
from parnassus.envs.gymnasium import GymnasiumEnvs
from parnassus.envs.wrap import as_gymnasium
from parnassus.exploration import GaussianNoise, OrnsteinUhlenbeck
from parnassus.objectives import AdaptiveKL, Clip
from parnassus.planning.cem import CEM
from parnassus.planning.mcts import PUCT
from parnassus.replay import Prioritized
from parnassus.schedules import Linear
from parnassus.types import BadInput, Collector, TrainingFailed, TrainState
from parnassus.world_models.ensemble import Ensemble
from parnassus.world_models.fitting import Fitting
from tests.probe_envs import Probe

OFF_POLICY: dict[str, Any] = {
    "num_steps": 2,
    "minibatch_size": 8,
    "replay_size": 64,
    "learning_starts": 16,
    "hidden_sizes": (8,),
}
MODEL = Ensemble(2, (8,), fitting=Fitting(minibatch_size=8, holdout_size=8, steps_per_look=2, max_looks=2))
ALGORITHMS: dict[str, Any] = {
    "ppo": PPO(
        num_steps=8,
        num_epochs=2,
        minibatch_size=16,
        learning_rate=Linear(1e-3),
        objective=Clip(Linear(0.2)),
        hidden_sizes=(8,),
        normalize_observations=True,
        normalize_rewards=True,
    ),
    "ppo-adaptive-kl": PPO(
        num_steps=8,
        num_epochs=2,
        minibatch_size=16,
        learning_rate=1e-2,
        objective=AdaptiveKL(1e-3),
        target_kl=1e-2,
        temperature=Linear(0.1),
        value_clip_range=0.2,
        hidden_sizes=(8,),
    ),
    "a2c": A2C(
        learning_rate=Linear(1e-3), temperature=0.1, hidden_sizes=(8,), shared_network=True, normalize_rewards=True
    ),
    "a3c": A3C(hidden_sizes=(8,), normalize_observations=True),  # synchronously: the asynchronous driver is not exact
    "a2c-adam": A2C(optimizer="adam", gae_lambda=0.9, normalize_advantages=True, hidden_sizes=(8,)),
    "vpg": VPG(
        num_steps=8,
        num_epochs=2,
        minibatch_size=16,
        estimator=NStep(3),
        hidden_sizes=(8,),
        normalize_observations=True,
        normalize_rewards=True,
    ),
    "td-actor-critic": TDActorCritic(num_steps=2, hidden_sizes=(8,), normalize_observations=True),
    "q-actor-critic": QActorCritic(hidden_sizes=(8,)),
    "advantage-actor-critic": AdvantageActorCritic(hidden_sizes=(8,)),
    "npg": NPG(num_steps=8, minibatch_size=16, num_epochs=2, max_kl=Linear(0.01), hidden_sizes=(8,)),
    "trpo": TRPO(
        num_steps=8,
        minibatch_size=16,
        num_epochs=2,
        hidden_sizes=(8,),
        normalize_observations=True,
        normalize_rewards=True,
    ),
    "acktr": ACKTR(num_steps=8, learning_rate=Linear(0.1), hidden_sizes=(8,), normalize_observations=True),
    "reinforce": REINFORCE(num_steps=16, hidden_sizes=(8,), baseline_rate=0.1),
    "sac": SAC(**OFF_POLICY),
    "dqn": DQN(**OFF_POLICY, target_period=3, learning_rate=Linear(1e-3)),
    "dqn-all": DQN(
        **OFF_POLICY,
        num_updates=3,
        double=True,
        loss="huber",
        n=2,
        dueling=True,
        sampling=Prioritized(),
        normalize_observations=True,
    ),
    "dqn-overlap": DQN(**OFF_POLICY, overlap=True),
    "dpg": DPG(num_steps=2, noise=OrnsteinUhlenbeck(), hidden_sizes=(8,), normalize_observations=True),
    "ddpg": DDPG(**OFF_POLICY, noise=OrnsteinUhlenbeck(), normalize_observations=True),
    "double-q": DoubleQ(**OFF_POLICY),
    "td3": TD3(**OFF_POLICY, noise=GaussianNoise(Linear(0.2, 0.1))),
    "mbpo": MBPO(SAC(**OFF_POLICY), MODEL, horizon=2, rollouts=4, imagined_size=32),
    "pets": PETS(
        CEM(horizon=2, candidates=8, iterations=2, elites=2), MODEL, num_steps=2, learning_starts=16, replay_size=64
    ),
    "sac-discrete": DiscreteSAC(**OFF_POLICY, num_updates=2, normalize_observations=True),
    "muzero": MuZero(
        **OFF_POLICY,
        search=PUCT(num_simulations=3),
        num_updates=2,
        num_unrolled=2,
        support_size=3,
        state_size=4,
        normalize_observations=True,
    ),
}
TABULAR: dict[str, Any] = {
    "q-learning": QLearning(num_steps=2),
    "double-q-learning": DoubleQLearning(num_steps=2),
    "sarsa": SARSA(n=3),
    "expected-sarsa": ExpectedSARSA(num_steps=2, learning_rate=Linear(0.5)),
    "sarsa-lambda": SARSALambda(num_steps=2),
    "tree-backup": TreeBackup(n=2, num_steps=2),
    "td-prediction": TDPrediction(n=3, num_steps=2),
    "td-lambda": TDLambda(num_steps=2),
    "monte-carlo": MonteCarloControl(num_steps=2, longest=8),
    "monte-carlo-prediction": MonteCarloPrediction(num_steps=2, longest=8, learning_rate=Linear(0.5)),
    "off-policy-monte-carlo": OffPolicyMonteCarlo(num_steps=2, longest=8, epsilon=Linear(1.0, 0.1)),
    "dyna-q": DynaQ(num_plans=2, num_steps=2, plus=True),
    "prioritized-sweeping": PrioritizedSweeping(num_plans=2, num_steps=2),
}
ALGORITHMS |= TABULAR
STEPS, CHUNK = 8, 2  # iterations in all, and in a chunk
N = 4
# Tables come from one mould, so a few stand for all, and one of them on the host.
FEWER = [name for name in ALGORITHMS if name not in TABULAR or name in ("sarsa", "monte-carlo-prediction", "dyna-q")]
# Near relatives of others here: resumed like all, but not on the host too, nor with other seeds beside.
RELATIVES = (
    "ppo-adaptive-kl",
    "a2c-adam",
    "a3c",
    "npg",
    "td-actor-critic",
    "advantage-actor-critic",
    "dqn",
    "double-q",
)
COMBINATIONS = [
    f"{name}/{kind}"
    for name in FEWER
    for kind in ("scan", "host")
    if kind == "scan" or not (name in TABULAR or name in RELATIVES) or name == "sarsa"
]


def make(combination: str) -> tuple[Any, Collector]:
    name, kind = combination.split("/")
    probe = Probe(
        "endless",
        continuous=name in ("sac", "ppo", "dpg", "ddpg", "double-q", "td3", "mbpo", "pets"),
        tabular=name in TABULAR,
    )
    if kind == "scan":
        return ALGORITHMS[name], ScanCollector(probe, N)
    return ALGORITHMS[name], HostCollector(GymnasiumEnvs(lambda: as_gymnasium(probe), N))


def planned_steps(algorithm: Any) -> int:
    return STEPS * algorithm.num_steps * N


def run(combination: str, directory: Path, stop_after: int | None) -> TrainState:
    """Train from the start, or from the checkpoint in `directory` if there is one; save where training stops."""
    algorithm, collector = make(combination)
    before, steps = dataclasses.asdict(algorithm), planned_steps(algorithm)
    state = training.init(algorithm, collector, jax.random.key(3), steps)
    if directory.exists():
        state, _, _ = checkpoint.load(directory, state)
    for chunk in training.train(algorithm, collector, state, steps, chunk_iterations=CHUNK):
        state = chunk.state
        if chunk.steps == stop_after:
            break
    checkpoint.save(directory, state, chunk.steps)
    # Objects hold nothing that training changes.
    assert dataclasses.asdict(algorithm) == before
    assert all(isinstance(leaf, float) for leaf in jax.tree.leaves(algorithm))
    assert not any(isinstance(value, jax.Array | np.ndarray) for value in vars(collector).values())
    return state


# Each of another kind: what `make test` also runs on the host, and with other seeds beside.
KINDS = ("ppo", "a2c", "reinforce", "trpo", "sac", "dqn-all", "dqn-overlap", "td3", "pets", "muzero", "sarsa")


def cases(names: list[str], of_each_kind: bool = False) -> list[Any]:
    """Those of relatives are left to `make test-all`."""

    def is_long(name: str) -> bool:
        algorithm, _, collector = name.partition("/")
        return algorithm in RELATIVES or ((of_each_kind or collector == "host") and algorithm not in KINDS)

    return [pytest.param(name, marks=[pytest.mark.long] * is_long(name)) for name in names]


@pytest.fixture(scope="module")
def resumed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of every run that is asked for here, the other half in another process."""
    directory = tmp_path_factory.mktemp("resumed")
    asked = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    combinations = sorted({params["combination"] for params in asked if "combination" in params})
    for combination in combinations:
        run(combination, directory / combination, stop_after=planned_steps(make(combination)[0]) // 2)
    script = (
        "import sys, json; from pathlib import Path; from tests.test_training import run\n"
        "for c in json.loads(sys.argv[2]): run(c, Path(sys.argv[1]) / c, None)"
    )
    command = [sys.executable, "-c", script, str(directory), json.dumps(combinations)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.parametrize("combination", cases(COMBINATIONS))
def test_resuming_in_a_new_process_is_exact(combination: str, resumed: Path, tmp_path: Path) -> None:
    whole = run(combination, tmp_path / "whole", stop_after=None)
    parts, steps, notes = checkpoint.load(resumed / combination, whole)
    assert steps == planned_steps(make(combination)[0])
    assert not notes
    different = []
    for (path, a), b in zip(jax.tree.leaves_with_path(whole), jax.tree.leaves(parts), strict=True):
        if jax.dtypes.issubdtype(getattr(a, "dtype", None), jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        if not np.array_equal(np.asarray(a), np.asarray(b)):
            different.append(jax.tree_util.keystr(path))
    assert different == []


def test_a_run_differs_from_one_of_another_seed(tmp_path: Path) -> None:
    """So that the test above could fail."""
    algorithm, collector = make("ppo/scan")
    weights = []
    for seed in (0, 1):
        state = training.init(algorithm, collector, jax.random.key(seed), 64)
        *_, chunk = training.train(algorithm, collector, state, 64)
        weights.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(chunk.state.learner.policy)]))
    assert not np.array_equal(*weights)


@pytest.mark.reuses_keys
@pytest.mark.parametrize("name", cases([name for name in FEWER if name != "dqn-overlap"], of_each_kind=True))
def test_seeds_side_by_side_equal_single_runs(name: str) -> None:
    algorithm, collector = make(f"{name}/scan")
    steps = planned_steps(algorithm)
    seeds = lambda: jax.random.split(jax.random.key(0), 4)  # noqa: E731
    *_, together = training.train(
        algorithm, collector, training.init(algorithm, collector, seeds(), steps), steps, CHUNK
    )
    for i in (0, 3):
        state = training.init(algorithm, collector, jax.random.clone(seeds()[i]), steps)
        *_, alone = training.train(algorithm, collector, state, steps, CHUNK)
        behaviors = (algorithm.behavior(alone.state.learner), algorithm.behavior(together.state.learner))
        for one, many in zip(*map(jax.tree.leaves, behaviors), strict=True):
            # Adam makes a step of full size of a gradient that is all rounding: equal to a fraction of a step.
            np.testing.assert_allclose(np.asarray(many)[i], np.asarray(one), rtol=1e-3, atol=5e-4)
        np.testing.assert_allclose(together.metrics["episode/return"][i], alone.metrics["episode/return"], rtol=1e-5)


def replaced(algorithm: Any, name: str, value: Any) -> Any:
    """With another value of a hyper-parameter, which may be that of a part."""
    fields = {field.name: getattr(algorithm, field.name) for field in dataclasses.fields(algorithm)}
    if name in fields:
        return dataclasses.replace(algorithm, **{name: value})
    part = next(part for part, old in fields.items() if hasattr(old, name))
    return dataclasses.replace(algorithm, **{part: replaced(fields[part], name, value)})


@pytest.mark.parametrize("name", cases(FEWER))
def test_another_float_is_the_same_program(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and not compiled: what is not traced anew is not compiled anew."""
    algorithm, collector = make(f"{name}/scan")
    traces, learn = [], type(algorithm).learn
    monkeypatch.setattr(type(algorithm), "learn", lambda *args: (traces.append(0), learn(*args))[1])
    jax.clear_caches()
    counts = []
    for changed in (
        algorithm,
        replaced(algorithm, "discount", 0.5),
        replaced(algorithm, "num_steps", 4),
    ):
        changed = training.arrays(changed)
        state = jax.eval_shape(lambda key: training.init(changed, collector, key, 64), jax.random.key(0))  # noqa: B023
        training.compiled_chunk.trace(changed, collector, state, np.int32(2), max_iterations=2)
        counts.append(len(traces))
    assert counts[0] > 0
    assert counts[1] == counts[0]  # a float: no new trace
    assert counts[2] > counts[1]  # a shape: a new one


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Counting:
    """Remembers what it acts with: the learner counts updates, the action says how many there were."""

    num_steps: int = 1
    overlap: bool = True

    def init(self, key: Any, spec: Any) -> Any:
        return {"updates": jax.numpy.int32(0)}

    def behavior(self, learner: Any) -> Any:
        return learner

    def initial_memory(self, spec: Any) -> tuple:
        return ()

    def act(self, behavior: Any, memory: tuple, observation: Any, key: Any, explore: bool) -> tuple:
        return jax.numpy.full(observation.shape[:1], behavior["updates"]), memory, {}

    def learn(self, learner: Any, trajectory: Any, key: Any) -> tuple:
        acted_with = trajectory.action.mean().astype(float)
        return {"updates": learner["updates"] + 1}, {"update/acted_with": acted_with, "loss/value": acted_with * 0.0}


@pytest.mark.wrong_types
@pytest.mark.parametrize(("overlap", "wanted"), [(False, [0, 1, 2, 3, 4]), (True, [0, 0, 1, 2, 3])])
def test_learning_while_acting_is_one_update_late(overlap: bool, wanted: list[int]) -> None:
    algorithm = Counting(overlap=overlap)
    collector = HostCollector(GymnasiumEnvs(lambda: as_gymnasium(Probe("endless")), 2))
    state = training.init(algorithm, collector, jax.random.key(0), 20)
    rows = []
    for chunk in training.train(algorithm, collector, state, 20, chunk_iterations=5):
        rows.append(float(chunk.metrics["update/acted_with"]) - 5 * len(rows))
        assert int(chunk.state.learner["updates"]) == 5 * len(rows)  # nothing is under way at a chunk's end
    np.testing.assert_allclose(rows, np.mean(wanted), rtol=1e-6)


def test_chunks_end_at_the_same_steps_however_the_run_is_cut() -> None:
    algorithm, collector = make("q-learning/scan")  # 8 steps an iteration
    state = training.init(algorithm, collector, jax.random.key(0), 80)
    whole = [chunk.steps for chunk in training.train(algorithm, collector, state, 80, chunk_iterations=4)]
    assert whole == [32, 64, 80]
    state = training.init(algorithm, collector, jax.random.key(0), 80)
    *_, first = training.train(algorithm, collector, state, 48, chunk_iterations=4)
    rest = [chunk.steps for chunk in training.train(algorithm, collector, first.state, 80, chunk_iterations=4)]
    assert (first.steps, rest) == (48, [64, 80])


def test_metrics_are_named_alike_and_count_every_episode() -> None:
    algorithm = PPO(num_steps=10, minibatch_size=40, num_epochs=1, hidden_sizes=(8,))
    collector = ScanCollector(Probe("endless"), N)  # episodes of five steps, return 5
    state = training.init(algorithm, collector, jax.random.key(0), 200)
    (chunk,) = training.train(algorithm, collector, state, 200, chunk_iterations=5)
    assert chunk.metrics["episode/return"] == 5.0
    assert chunk.metrics["episode/length"] == 5.0
    assert chunk.metrics["episode/count"] == 200 / 5
    names = {"loss/policy", "loss/value", "policy/entropy", "policy/kl", "policy/clip_fraction"}
    names |= {"value/explained_variance", "time/steps_per_second", "time/compile_seconds"}
    assert names < set(chunk.metrics)
    assert all("/" in name for name in chunk.metrics)


def test_ppo_solves_cartpole() -> None:
    """The whole of it, small enough for a test: solved is 475."""
    algorithm = PPO(num_steps=32, minibatch_size=256, num_epochs=20, gae_lambda=0.8, discount=0.98, learning_rate=1e-3)
    collector = ScanCollector(CartPole(), 8)
    state = training.init(algorithm, collector, jax.random.key(0), 60_000)
    best = max(float(chunk.metrics["episode/return"]) for chunk in training.train(algorithm, collector, state, 60_000))
    assert best > 475


class Broken:
    """A JAX environment, not even a pytree, whose reward is NaN at its third step."""

    observation_space, action_space = Probe("endless").observation_space, Probe("endless").action_space

    def reset(self, key: Any) -> Any:
        return Probe("endless").reset(key)

    def step(self, state: Any, action: Any, key: Any) -> Any:
        step = Probe("endless").step(state, action, key)
        return step._replace(reward=jax.numpy.where(state.time == 2, jax.numpy.nan, step.reward))


class Weak:
    """A JAX environment whose state is a Python number at first."""

    observation_space, action_space = Probe("endless").observation_space, Probe("endless").action_space

    def reset(self, key: Any) -> Any:
        state, observation = Probe("endless").reset(key)
        return (state, 0.0), observation

    def step(self, state: Any, action: Any, key: Any) -> Any:
        step = Probe("endless").step(state[0], action, key)
        return step._replace(state=(step.state, jax.numpy.float32(1.0)))


def test_the_second_chunk_is_the_same_program() -> None:
    from parnassus.envs.wrap import as_pytree

    algorithm, collector = PPO(num_steps=2, minibatch_size=4, hidden_sizes=(8,)), ScanCollector(as_pytree(Weak()), 2)
    state = training.init(algorithm, collector, jax.random.key(0), 40)
    types = jax.tree.map(jax.typeof, state)
    for chunk in training.train(algorithm, collector, state, 40, chunk_iterations=5):
        assert jax.tree.map(jax.typeof, chunk.state) == types  # weak or not, too


def test_a_reward_that_is_not_a_number_stops_training_and_is_named() -> None:
    from parnassus.envs.wrap import as_pytree

    algorithm = QLearning(num_steps=2)
    collector = ScanCollector(as_pytree(Broken()), 1)
    algorithm = PPO(num_steps=2, minibatch_size=2, num_epochs=1, hidden_sizes=(8,))
    state = training.init(algorithm, collector, jax.random.key(0), 100)
    with pytest.raises(TrainingFailed, match=r"^reward is not finite .* iteration 2, environment steps 3 to 4"):
        for _ in training.train(algorithm, collector, state, 100, chunk_iterations=5):
            pass


def test_an_exploding_learning_rate_is_named() -> None:
    algorithm = dataclasses.replace(ALGORITHMS["reinforce"], learning_rate=1e38)
    collector = ScanCollector(CartPole(), N)
    state = training.init(algorithm, collector, jax.random.key(0), 10_000)
    with pytest.raises(TrainingFailed, match="is not finite"):
        for _ in training.train(algorithm, collector, state, 10_000):
            pass


def test_bad_hyper_parameters_are_refused_before_training() -> None:
    collector = ScanCollector(CartPole(), N)
    for algorithm, message in [
        (PPO(num_steps=0), "num_steps must be at least 1, not 0"),
        (PPO(discount=1.5), "discount must be at least 0 and at most 1, not 1.5"),
        (PPO(objective=Clip(-0.1)), "objective.clip_range must be at least 0, not -0.1"),
        (PPO(objective=AdaptiveKL(-1.0)), "objective.target must be at least 0, not -1"),
        (PPO(target_kl=-1.0), "target_kl must be at least 0, not -1"),
        (PPO(num_steps=10, minibatch_size=64), r"minibatch_size=64 must divide num_steps \* num_envs = 10 \* 4 = 40"),
        (SAC(), "SAC needs a continuous"),
        (QLearning(), "needs a Discrete observation space"),
    ]:
        with pytest.raises(BadInput, match=message):
            training.init(algorithm, collector, jax.random.key(0), 100)


def test_seeds_on_a_host_environment_are_refused() -> None:
    algorithm, collector = make("ppo/host")
    with pytest.raises(BadInput, match="need a JAX environment"):
        training.init(algorithm, collector, jax.random.split(jax.random.key(0), 2), 100)
