"""Runs: what is in the directory, resuming to the bit, several seeds, what goes wrong and what is kept then."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn

import parnassus as pa
from parnassus.algorithms.acktr import ACKTR
from parnassus.algorithms.alphazero import AlphaZero
from parnassus.algorithms.distillation import Distillation
from parnassus.algorithms.mpc import MPC
from parnassus.algorithms.npg import NPG
from parnassus.algorithms.q_learning import QLearning
from parnassus.algorithms.reinforce import REINFORCE
from parnassus.algorithms.sac import SAC
from parnassus.algorithms.trpo import TRPO
from parnassus.envs.classic import CartPole
from parnassus.networks import MLP
from parnassus.planning.cem import CEM
from parnassus.planning.mcts import PUCT
from parnassus.schedules import Linear
from tests.tiny_runs import assert_same, assert_same_numbers, checkpoints, leaves, tiny_ppo, tiny_run, well_behaved


def test_the_directory_says_all(tmp_path):
    run = tiny_run(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["algorithm"] == "ppo" and config["hyperparameters"]["hidden_sizes"] == [4]
    assert config["hyperparameters"]["objective"] == {"Clip": {"clip_range": 0.2}}
    assert (config["env"], config["num_envs"], config["seed"], config["steps"]) == ("jax:CartPole-v1", 2, 0, 64)
    assert config["chunk_iterations"] == 1 and config["exact_resume"] is True
    assert config["versions"]["parnassus"] == pa.__version__ and config["versions"]["jax"] == jax.__version__
    assert {"python", "jaxlib", "flax", "optax", "numpy", "gymnasium"} <= config["versions"].keys()
    assert config["platform"] and config["command"]
    assert run.steps == 64 and run.metrics["steps"].tolist() == [16, 32, 48, 64]
    assert "loss/policy" in run.metrics and "time/steps_per_second" in run.metrics
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    assert checkpoints(tmp_path / "run")[-1] == 64


def test_quiet_says_nothing(tmp_path, capfd):
    tiny_run(tmp_path / "run", steps=16)
    assert capfd.readouterr() == ("", "")


def test_not_quiet_says_how_far_it_is(tmp_path, capfd):
    tiny_run(tmp_path / "run", quiet=False)
    assert "64/64 steps" in capfd.readouterr().err


def test_the_default_directory_names_algorithm_environment_and_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = pa.train(tiny_ppo(), "jax:CartPole-v1", 16, seed=3, num_envs=2, quiet=True)
    assert run.directory == Path("runs/ppo-jax-CartPole-v1-3") and (run.directory / "config.json").exists()


def test_a_name_takes_the_preset(tmp_path):
    run = pa.train("q-learning", "jax:FrozenLake-v1", 8, run=tmp_path / "run", quiet=True)
    assert run.config["num_envs"] == 8
    assert run.algorithm.learning_rate == Linear(0.1, 0.01)


CASES = {
    "ppo": (lambda: tiny_ppo(learning_rate=Linear(1e-3)), "CartPole-v1"),
    "npg": (lambda: NPG(num_steps=8, minibatch_size=8, num_epochs=1, hidden_sizes=(4,)), "CartPole-v1"),
    "trpo": (lambda: TRPO(num_steps=8, minibatch_size=8, num_epochs=1, hidden_sizes=(4,)), "CartPole-v1"),
    "acktr": (lambda: ACKTR(num_steps=8, hidden_sizes=(4,)), "CartPole-v1"),
    "reinforce": (lambda: REINFORCE(num_steps=8, hidden_sizes=(4,)), "CartPole-v1"),
    "sac": (
        lambda: SAC(num_steps=4, learning_starts=16, minibatch_size=8, replay_size=32, hidden_sizes=(4,)),
        "Pendulum-v1",
    ),
    "q-learning": (lambda: QLearning(num_steps=8), "FrozenLake-v1"),
    "mpc": (lambda: MPC(TINY_CEM, num_steps=4), "Pendulum-v1"),
    "alphazero": (
        lambda: AlphaZero(
            PUCT(num_simulations=3), num_steps=4, num_updates=2, minibatch_size=8, replay_size=32, hidden_sizes=(4,)
        ),
        "CartPole-v1",
    ),
    "distillation": (
        lambda: Distillation(
            MPC(TINY_CEM), num_steps=4, num_updates=2, minibatch_size=8, replay_size=32, hidden_sizes=(4,)
        ),
        "Pendulum-v1",
    ),
}
TINY_CEM = CEM(horizon=2, candidates=4, elites=2, iterations=2)
IN_SIMULATORS = ("mpc", "distillation", "alphazero")  # no host environment is one


@pytest.mark.reuses_keys
@pytest.mark.parametrize(
    ("name", "source"),
    [(name, source) for name in CASES for source in ("jax:", "") if source or name not in IN_SIMULATORS],
)
def test_resuming_is_exact(name, source, tmp_path):
    """Stopped after a chunk by a target that any return reaches, and resumed: every bit of an unbroken run."""
    make, env = CASES[name]
    whole = tiny_run(tmp_path / "whole", source + env, algorithm=make(), chunk_steps=32, steps=128)
    tiny_run(tmp_path / "parts", source + env, algorithm=make(), chunk_steps=32, steps=128, target_return=-np.inf)
    before = checkpoints(tmp_path / "parts")[-1]
    assert before < 128
    resumed = pa.resume(tmp_path / "parts", target_return=np.inf, quiet=True)
    assert_same(whole.state, resumed.state)
    assert_same_numbers(tmp_path / "whole", tmp_path / "parts")
    assert json.loads((tmp_path / "parts" / "config.json").read_text())["resumed"][0]["at"] == before


@pytest.mark.slow
@pytest.mark.reuses_keys
def test_resuming_in_another_process_is_exact(tmp_path):
    whole = tiny_run(tmp_path / "whole", "CartPole-v1")
    tiny_run(tmp_path / "parts", "CartPole-v1", target_return=-np.inf)
    main = "import sys; from parnassus.cli import main; sys.exit(main())"
    arguments = ["resume", str(tmp_path / "parts"), "--quiet", "--target-return", "1e9"]
    subprocess.run([sys.executable, "-W", "error", "-c", main, *arguments], check=True, timeout=120)
    assert_same(whole.state, pa.load(tmp_path / "parts").state)


def test_load_gives_what_train_gave(tmp_path):
    trained = tiny_run(tmp_path / "run", "CartPole-v1")
    loaded = pa.load(tmp_path / "run")
    assert loaded.steps == trained.steps and loaded.algorithm == trained.algorithm and loaded.env == "CartPole-v1"
    assert_same(trained.state, loaded.state)
    assert trained.evaluate(3).returns.tolist() == loaded.evaluate(3).returns.tolist()


def test_evaluations_are_kept(tmp_path):
    run = tiny_run(tmp_path / "run", steps=16)
    first, second = run.evaluate(episodes=3), run.evaluate(episodes=4, seed=1)
    header, *rows = (tmp_path / "run" / "evaluations.csv").read_text().splitlines()
    assert header == "steps,episodes,seed,return,low,high,length"
    assert [float(row.split(",")[3]) for row in rows] == [first.mean, second.mean]
    assert rows[1].startswith("16,4,1,")


def test_more_steps_are_planned_by_the_schedule(tmp_path):
    tiny_run(tmp_path / "run", algorithm=tiny_ppo(learning_rate=Linear(1e-3)))
    with pytest.raises(pa.BadInput, match=r"nothing is left to do in .*run: it has taken 64 steps and 64 are planned"):
        pa.resume(tmp_path / "run")
    longer = pa.resume(tmp_path / "run", steps=128, quiet=True)
    assert longer.steps == 128 and int(longer.state.learner.progress.planned) == 128
    assert pa.load(tmp_path / "run").config["steps"] == 128
    assert longer.metrics["steps"].tolist() == list(range(16, 129, 16))


def test_an_environment_object_and_a_function(tmp_path):
    for name, env in (("object", CartPole(max_steps=7)), ("function", well_behaved)):
        run = tiny_run(tmp_path / name, env)
        assert run.evaluate(2).lengths.max() <= 7
        with pytest.raises(pa.BadInput, match=r"config.json cannot rebuild the environment .*: pass env= in Python"):
            pa.load(tmp_path / name)
        assert_same(pa.load(tmp_path / name, env=env).state, run.state)


class Doubled(nn.Module):
    """A network that no config.json can name."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(2.0 * x)


def test_a_network_of_ones_own(tmp_path):
    algorithm = tiny_ppo(network=Doubled())
    run = tiny_run(tmp_path / "run", algorithm=algorithm)
    with pytest.raises(pa.BadInput, match=r"cannot rebuild ppo.network = Doubled\(.*: pass algorithm= in Python"):
        pa.load(tmp_path / "run")
    assert_same(pa.load(tmp_path / "run", algorithm).state, run.state)
    resumed = pa.resume(tmp_path / "run", 128, algorithm=algorithm, quiet=True)
    assert resumed.steps == 128


@pa.pytree
class Mine(QLearning):
    """An algorithm that no config.json can name."""


def test_an_algorithm_of_ones_own(tmp_path):
    run = tiny_run(tmp_path / "run", "jax:FrozenLake-v1", algorithm=Mine(num_steps=8, learning_rate=0.2))
    with pytest.raises(pa.BadInput, match=r"cannot rebuild the algorithm Mine, .*: pass algorithm= in Python"):
        pa.load(tmp_path / "run")
    assert_same(pa.load(tmp_path / "run", Mine(num_steps=8)).state, run.state)


@pytest.mark.reuses_keys
def test_seeds_are_runs(tmp_path):
    runs = tiny_run(tmp_path / "runs", seeds=[2, 5])
    assert len(runs) == 2 and runs.steps == 64
    single = tiny_run(tmp_path / "single", seed=5)
    alone = pa.load(tmp_path / "runs" / "seed-5")
    assert alone.config["seed"] == 5 and "seeds" not in alone.config
    assert_same(alone.state, runs[1].state)
    for name, x in leaves(single.state).items():
        np.testing.assert_allclose(leaves(alone.state)[name], x, rtol=1e-4, atol=1e-5, err_msg=name)
    assert alone.evaluate(2).returns.tolist() == runs[1].evaluate(2).returns.tolist()
    assert runs.metrics["steps"].tolist() == [16, 32, 48, 64]
    assert {"episode/return", "episode/return/low", "episode/return/high"} <= runs.metrics.keys()
    assert len(runs.evaluate(2)) == 2
    with pytest.raises(pa.BadInput, match="holds 2 seeds: load one of them, such as .*seed-2"):
        pa.load(tmp_path / "runs")


@pytest.mark.reuses_keys
def test_seeds_resume_together_and_alone(tmp_path):
    whole = tiny_run(tmp_path / "whole", seeds=range(2))
    tiny_run(tmp_path / "parts", seeds=range(2), steps=32)
    resumed = pa.resume(tmp_path / "parts", 64, quiet=True)
    for i in range(2):
        assert_same(whole[i].state, resumed[i].state)
        assert_same_numbers(tmp_path / "whole" / f"seed-{i}", tmp_path / "parts" / f"seed-{i}")
    assert pa.load_seeds(tmp_path / "parts").steps == 64
    assert pa.resume(tmp_path / "parts" / "seed-1", 128, quiet=True).steps == 128
    with pytest.raises(pa.BadInput, match="the seeds are at different steps, one of them at 64: resume each alone"):
        pa.resume(tmp_path / "parts", 256)


# Bad input.


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"steps": -5}, "steps must be a whole number of at least 1, not -5"),
        ({"steps": 1e3}, "steps must be a whole number of at least 1, not 1000.0"),
        ({"steps": 2**31}, r"steps must be below 2\^31"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"seeds": []}, "seeds must be one or more different numbers"),
        ({"seeds": [1, 1]}, "seeds must be one or more different numbers"),
        ({"num_envs": 0}, "num_envs must be a whole number of at least 1, not 0"),
        ({"chunk_steps": 0}, "chunk_steps must be a whole number of at least 1, not 0"),
        ({"target_return": float("nan")}, "target_return must be a number"),
        ({"algorithm": "ppoo"}, "unknown algorithm 'ppoo'; did you mean ppo"),
        ({"algorithm": pa.PPO}, r"an algorithm is a name or an object such as PPO\(\)"),
        ({"algorithm": tiny_ppo(num_steps=0)}, "num_steps must be at least 1, not 0"),
        ({"algorithm": tiny_ppo(minibatch_size=7)}, "minibatch_size=7 must divide"),
        ({"algorithm": SAC()}, r"SAC needs a continuous \(Box\) action space"),
        ({"env": "CartPole-v1", "seeds": range(2)}, "several seeds in one program need a JAX environment"),
        ({"env": "jax:CartPol-v1"}, "unknown environment 'jax:CartPol-v1'; did you mean CartPole-v1"),
        ({"asynchronous": True}, "asynchronous=True is for Gymnasium environments"),
        ({"env_options": {"colour": 1}}, "jax:CartPole-v1 does not know an option of"),
    ],
)
def test_bad_input_leaves_no_directory(options, message, tmp_path):
    algorithm, env = options.pop("algorithm", tiny_ppo()), options.pop("env", "jax:CartPole-v1")
    options = {"steps": 16, "num_envs": 2, "quiet": True, "run": tmp_path / "run", **options}
    with pytest.raises(pa.BadInput, match=message):
        pa.train(algorithm, env, **options)
    assert not (tmp_path / "run").exists()


def test_an_existing_directory_is_left_alone(tmp_path):
    tiny_run(tmp_path / "run")
    with pytest.raises(
        pa.BadInput, match=r"already holds a run of ppo on jax:CartPole-v1: go on with `parnassus resume"
    ):
        tiny_run(tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("\\section{}")
    with pytest.raises(pa.BadInput, match="mine exists and is no run directory; choose another"):
        tiny_run(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_directories_that_are_no_runs(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(pa.BadInput, match="there is no run directory"):
        pa.load(tmp_path / "nothing")
    with pytest.raises(pa.BadInput, match="empty is not a run directory: it is empty"):
        pa.resume(tmp_path / "empty")
    tiny_run(tmp_path / "run", steps=16)
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(pa.BadInput, match="checkpoints holds no checkpoint"):
        pa.load(tmp_path / "run")
    with pytest.raises(pa.BadInput, match="without a checkpoint: delete it, or choose another"):
        tiny_run(tmp_path / "run")


def test_another_algorithm_or_other_shapes(tmp_path):
    tiny_run(tmp_path / "run", steps=16)
    with pytest.raises(pa.BadInput, match="is a run of ppo, not of reinforce"):
        pa.load(tmp_path / "run", REINFORCE())
    with pytest.raises(pa.BadInput, match=r"does not fit: learner/.* is float32\[.*\] there, but float32\[.*\] here"):
        pa.load(tmp_path / "run", tiny_ppo(hidden_sizes=(5,)))
    with pytest.raises(pa.BadInput, match="is of another algorithm, network or environment: learner/"):
        pa.load(tmp_path / "run", tiny_ppo(network=MLP((4, 4))))
    with pytest.raises(pa.BadInput, match="is of another algorithm, network or environment: actor/state/"):
        pa.load(tmp_path / "run", env="jax:FrozenLake-v1")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["algorithm"], config["hyperparameters"] = "reinforce", {"hidden_sizes": [4]}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(pa.BadInput, match="is of another algorithm, network or environment"):
        pa.resume(tmp_path / "run", 64)
