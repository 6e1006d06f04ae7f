"""The command line: what it prints, the exit status, and that bad input is one sentence without a traceback."""

import json
import os
import signal
import subprocess
import sys
import time

import gymnasium
import pytest

import parnassus
from parnassus import presets
from parnassus.cli import HELP, main
from tests.tiny_runs import raises_at

TINY = "--num-envs 2 --num-steps 8 --minibatch-size 16 --num-epochs 1 --hidden-sizes 4 --chunk-steps 16 --quiet"
PROGRAM = [sys.executable, "-W", "error", "-m", "parnassus"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 32 steps. Not to be changed."""
    directory = tmp_path_factory.mktemp("cli") / "run"
    assert main(f"train ppo jax:CartPole-v1 --steps 32 --run {directory} {TINY}".split()) == 0
    return directory


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Two seeds of 32 steps. Not to be changed."""
    directory = tmp_path_factory.mktemp("cli") / "seeds"
    assert main(f"train ppo jax:CartPole-v1 --steps 32 --seeds 2 --seed 3 --run {directory} {TINY}".split()) == 0
    return directory


def test_train(trained):
    config = json.loads((trained / "config.json").read_text())
    assert (config["steps"], config["num_envs"], config["chunk_iterations"]) == (32, 2, 1)
    assert config["hyperparameters"]["hidden_sizes"] == [4]
    assert config["hyperparameters"]["discount"] == 0.98  # the preset's


def test_train_takes_every_kind_of_option(tmp_path, capsys):
    options = "--clip-range 0.1 --learning-rate linear:3e-4:0 --no-exact-resume --target-return -inf --steps 1_000"
    status = main(f"train ppo CartPole-v1 {TINY.replace('--quiet', '')} {options} --run {tmp_path / 'run'}".split())
    assert status == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["hyperparameters"]["objective"] == {"Clip": {"clip_range": 0.1}}
    assert config["hyperparameters"]["learning_rate"]["Linear"]["start"] == 3e-4
    assert config["exact_resume"] is False and config["steps"] == 1000
    said = capsys.readouterr()
    assert f"evaluate with: parnassus evaluate {tmp_path / 'run'}" in said.out


def test_seeds(seeds, capsys):
    assert json.loads((seeds / "config.json").read_text())["seeds"] == [3, 4]
    assert main(["evaluate", str(seeds), "--episodes", "2"]) == 0
    *each, together = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in each] == ["seed-3", "seed-4"]
    assert together.startswith("interquartile mean")
    assert main(["evaluate", str(seeds), "--episodes", "2", "--json"]) == 0
    assert [row["episodes"] for row in json.loads(capsys.readouterr().out)] == [2, 2]


def test_resume(tmp_path):
    run = tmp_path / "run"
    assert main(f"train ppo jax:CartPole-v1 --steps 16 --run {run} {TINY}".split()) == 0
    assert main(["resume", str(run), "--steps", "32", "--quiet"]) == 0
    assert json.loads((run / "config.json").read_text())["steps"] == 32


def test_evaluate(trained, capsys):
    assert main(["evaluate", str(trained), "--episodes", "3"]) == 0
    assert capsys.readouterr().out.startswith("return ")
    assert main(["evaluate", "--json", "--episodes", "3", str(trained)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 32 and len(result["returns"]) == 3
    assert result["interval"][0] <= result["mean"] <= result["interval"][1]
    assert main(["evaluate", "--json", "--episodes", "1", str(trained)]) == 0
    assert json.loads(capsys.readouterr().out)["interval"] is None


def test_plot(tmp_path, trained, capsys):
    assert (
        main(f"train ppo jax:CartPole-v1 --steps 1000 --run {tmp_path / 'run'} {TINY} --chunk-steps 500".split()) == 0
    )
    assert main(["plot", str(tmp_path / "run"), "--output", str(tmp_path / "curve.png")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'curve.png'}\n"
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_lists(capsys):
    assert main(["list", "algorithms"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(presets.ALGORITHMS)
    start = max(map(len, presets.ALGORITHMS)) + 2
    assert all(line[start - 2 : start] == "  " and line[start] != " " for line in lines)  # the summaries line up
    assert all(line.endswith((".", ")")) for line in lines)  # and are whole sentences
    assert main(["list", "environments"]) == 0
    assert {"jax:CartPole-v1", "CartPole-v1"} <= set(capsys.readouterr().out.splitlines())


def test_help_and_version(capsys):
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        assert capsys.readouterr().out == HELP
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"parnassus {parnassus.__version__}\n"
    assert main(["train", "--help"]) == 0
    assert "ppo, prioritized-sweeping, q-actor-critic, q-learning, reinforce, sac, sac-disc" in capsys.readouterr().out


def test_help_of_an_algorithm_has_the_presets_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["train", "ppo", "CartPole-v1", "--help"]) == 0
    said = capsys.readouterr().out
    assert "(default: linear:0.2:0:1)" in said and "environments side by side (default: 8)" in said
    assert main(["train", "sac", "--help"]) == 0
    assert "--learning-starts INT" in capsys.readouterr().out
    for command in ("resume", "evaluate", "plot", "list"):
        assert main([command, "--help"]) == 0
        assert f"parnassus {command}" in capsys.readouterr().out


@pytest.mark.slow
def test_help_imports_nothing_heavy():
    program = (
        "import sys; from parnassus.cli import main; main(['--help']); "
        "print(sorted({'jax', 'numpy', 'gymnasium', 'flax', 'tyro', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert process.stdout == HELP and process.stderr == "[]\n"


def assert_refused(arguments, sentence, capsys, status=2):
    """One sentence, one line, on stderr alone."""
    assert main(arguments.split()) == status
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("parnassus: ") and "Traceback" not in err
    assert sentence in err


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("trian", "unknown command 'trian'; did you mean train?"),
        ("--verison", "unknown option '--verison'; did you mean --version?"),
        ("train", "train needs an algorithm and an environment"),
        ("train ppo", "train needs an environment"),
        ("train --steps 5", "train needs an algorithm and an environment"),
        ("train ppo CartPole-v1", "train needs --steps, such as: parnassus train ppo CartPole-v1 --steps 100_000"),
        ("train ppoo CartPole-v1 --steps 5", "unknown algorithm 'ppoo'; did you mean ppo?"),
        ("train ppo CartPole-v7 --steps 5", "unknown Gymnasium environment 'CartPole-v7'; did you mean CartPole-v1"),
        ("train ppo jax:CartPol-v1 --steps 5", "did you mean CartPole-v1"),
        ("train ppo moon:CartPole-v1 --steps 5", "unknown environment 'moon:CartPole-v1'"),
        (
            "train ppo CartPole-v1 --steps 5 --clip-rnage 1",
            "unknown option --clip-rnage; did you mean --clip-range or",
        ),
        ("train ppo CartPole-v1 --steps", "--steps needs a value"),
        ("train ppo CartPole-v1 --steps many", "--steps must be a whole number or none, not 'many'"),
        ("train ppo CartPole-v1 --steps 5 --discount x", "--discount must be a number, not 'x'"),
        ("train ppo CartPole-v1 --steps 5 extra", "unexpected argument 'extra'"),
        ("train ppo CartPole-v1 --steps 0", "steps must be a whole number of at least 1, not 0"),
        ("train ppo CartPole-v1 --steps -5", "steps must be a whole number of at least 1, not -5"),
        ("train ppo CartPole-v1 --steps 5 --num-envs 0", "num_envs must be a whole number of at least 1, not 0"),
        ("train ppo CartPole-v1 --steps 5 --seed -1", "seed must be a whole number of at least 0, not -1"),
        ("train ppo CartPole-v1 --steps 5 --seeds 0", "seeds must be a whole number of at least 1, not 0"),
        ("train ppo CartPole-v1 --steps 5 --num-epochs -3", "num_epochs must be at least 1, not -3"),
        ("train ppo CartPole-v1 --steps 5 --discount 1.5", "discount must be at least 0 and at most 1, not 1.5"),
        ("train ppo CartPole-v1 --steps 5 --discount nan", "discount must be"),
        ("train ppo CartPole-v1 --steps 5 --clip-range -1", "clip_range must be at least 0, not -1"),
        ("train ppo CartPole-v1 --steps 5 --minibatch-size 77", "minibatch_size=77 must divide num_steps * num_envs"),
        (
            "train sac CartPole-v1 --steps 5",
            "SAC needs a continuous (Box) action space, not Discrete(2); see DiscreteSAC",
        ),
        ("train q-learning CartPole-v1 --steps 5", "Q-learning keeps a table and needs a Discrete observation space"),
        ("train ppo CartPole-v1 --steps 5 --seeds 3", "several seeds in one program need a JAX environment (jax:..., "),
        ("train ppo CartPole-v1 --steps 5 --run {run}", "already holds a run of ppo on jax:CartPole-v1: go on with"),
        ("train sac Pendulum-v1 --steps 5 --run {run}", "already holds a run of ppo on jax:CartPole-v1: go on with"),
        ("resume", "resume needs a run directory"),
        ("resume {run}", "nothing is left to do in"),
        ("resume {run} --steps 0", "steps must be a whole number of at least 1, not 0"),
        ("resume {run} --step", "unknown option --step; did you mean --steps"),
        ("resume {empty}", "is not a run directory: it is empty"),
        ("resume {nothing}", "there is no run directory"),
        ("evaluate {run} --episodes 0", "episodes must be a whole number of at least 1, not 0"),
        ("evaluate {run} --episodes", "--episodes needs a value"),
        ("evaluate {empty}", "is not a run directory: it is empty"),
        ("evaluate {run} {run}", "unexpected argument"),
        ("plot", "plot needs run directories"),
        ("plot {nothing}", "there is no run directory"),
        ("plot {run} --output curve.pdf", "its name must end in .png"),
        ("list", "list takes algorithms or environments, as in: parnassus list algorithms"),
        ("list planets", "list takes algorithms or environments, not 'planets'"),
    ],
)
def test_bad_input(arguments, sentence, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    arguments = arguments.format(run=trained, empty=tmp_path / "empty", nothing=tmp_path / "nothing")
    assert_refused(arguments, sentence, capsys)
    assert not (tmp_path / "runs").exists()


def test_a_config_of_another_algorithm_or_other_shapes(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(f"train ppo jax:CartPole-v1 --steps 16 --run {run} {TINY}".split()) == 0
    original = json.loads((run / "config.json").read_text())

    def write(**changes):
        (run / "config.json").write_text(json.dumps({**original, **changes}))

    write(hyperparameters={**original["hyperparameters"], "hidden_sizes": [5]})
    assert_refused(f"evaluate {run}", "does not fit: learner/", capsys)
    write(algorithm="reinforce", hyperparameters={"hidden_sizes": [4]})
    assert_refused(f"resume {run} --steps 32", "is of another algorithm, network or environment: ", capsys)
    write(algorithm="my-own")
    assert_refused(f"evaluate {run}", "config.json cannot rebuild the algorithm my-own", capsys)
    (run / "config.json").write_text("{")
    assert_refused(f"evaluate {run}", "config.json is broken", capsys)


def test_a_run_that_fails_has_status_1(tmp_path, capsys):
    gymnasium.register("Stuck-v0", entry_point=raises_at(50))
    try:
        arguments = f"train ppo Stuck-v0 --steps 200 --run {tmp_path / 'run'} {TINY}"
        assert_refused(arguments, "the environment raised RuntimeError: the gripper is stuck", capsys, status=1)
    finally:
        gymnasium.registry.pop("Stuck-v0")


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_exit(number, status, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = f"train ppo jax:CartPole-v1 --steps 1_000_000_000 --run {run} {TINY} --chunk-steps 1024".split()
    process = subprocess.Popen([*PROGRAM, *arguments], stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        wait_for(lambda: any(run.glob("checkpoints/*.json")), process)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status and "Traceback" not in said
    assert "stopping after this chunk; once more to stop at once" in said
    steps = int(max(path.stem for path in run.glob("checkpoints/*.json")))
    assert f"stopped at step {steps:,}; go on with: parnassus resume {run}" in said
    assert main(["resume", str(run), "--steps", str(steps + 1), "--quiet"]) == 0
