"""The benchmarks' pure parts: ratios, tables, the tables of tasks, and keeping finished seeds."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import parnassus as pa
from benchmarks import learning, planning, report, speed, tabular, world_models
from benchmarks.tasks import (
    REJAX_PPO,
    SB3_A2C,
    SB3_DDPG,
    SB3_DQN,
    SB3_PPO,
    SB3_SAC,
    SB3_TD3,
    SB3_TRPO,
    SETTINGS,
    TASKS,
    Milestone,
    Setting,
)
from parnassus.presets import algorithm_class, preset
from parnassus.types import Spec

ROOT = Path(__file__).resolve().parents[1]


def a_run(round_index: int, side: str, rate: float, other_cores: float = 0.0) -> dict:
    """A run of one side, as the harness keeps it."""
    return {
        "round": round_index,
        "side": side,
        "steps_per_second": rate,
        "compile_seconds": 1.0,
        "peak_memory_mb": 100,
        "other_cores": other_cores,
    }


def a_record(task: str, runs: list[dict]) -> dict:
    """A line of speed.jsonl."""
    return {
        "task": task,
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "abc1234",
        "command": f"python -m benchmarks.speed --task {task}",
        "machine": {"cpu": "A CPU", "cores": 2},
        "versions": {run["side"]: {"python": "3.11.7"} for run in runs},
        "runs": runs,
    }


def test_ratios_compare_runs_of_the_same_round():
    runs = [a_run(0, "parnassus", 300), a_run(0, "sb3", 100), a_run(1, "parnassus", 400), a_run(1, "sb3", 200)]
    assert report.ratios(runs, "sb3", "parnassus") == [3.0, 2.0]


def test_ratios_leave_out_rounds_in_which_a_side_failed():
    runs = [a_run(0, "parnassus", 300), a_run(1, "parnassus", 400), a_run(1, "sb3", 200), a_run(2, "sb3", 1)]
    assert report.ratios(runs, "sb3", "parnassus") == [2.0]


def test_spread_is_median_least_and_greatest():
    assert report.spread([3.0, 1.0, 2.0]) == "2.00 (1.00 to 3.00)"
    assert report.spread([]) == ""


def test_disturbed_rounds_count_only_when_there_are_too_few_others():
    quiet = [a_run(r, side, 1.0) for r in (0, 1) for side in ("parnassus", "sb3")]
    loud = [a_run(2, "parnassus", 1.0), a_run(2, "sb3", 1.0, other_cores=1.0)]
    assert report.undisturbed(quiet + loud) == quiet
    assert report.undisturbed(quiet[:2] + loud) == quiet[:2] + loud


@pytest.mark.parametrize(
    ("value", "bar", "expected"), [(2.0, 2.0, "yes"), (1.5, 2.0, "**no**, 75% of it"), (2.0, None, ""), (None, 2.0, "")]
)
def test_verdict(value: float | None, bar: float | None, expected: str):
    assert report.verdict(value, bar) == expected


def test_speed_table_says_where_the_bar_is_missed():
    runs = [a_run(r, side, rate) for r in (0, 1) for side, rate in (("parnassus", 1000), ("rejax", 1000))]
    text = report.speed_tables([a_record("ppo-gymnax-8", runs)])
    row = next(line for line in text.splitlines() if line.startswith("| PPO"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert len(cells) == len(report.SPEED_HEADER)
    found = dict(zip(report.SPEED_HEADER, cells, strict=True))
    assert found["ratio: median (min to max)"] == "1.00 (1.00 to 1.00)"
    assert found["bar"] == "1.2"
    assert found["met"].startswith("**no**")
    assert "python -m benchmarks.speed --task ppo-gymnax-8" in text and "A CPU" in text


def test_speed_table_shows_the_newest_record_of_each_task():
    old, new = ([a_run(0, "parnassus", rate), a_run(0, "rejax", 10)] for rate in (11111, 22222))
    text = report.speed_tables([a_record("ppo-gymnax-8", old), a_record("ppo-gymnax-8", new)])
    assert "22,222" in text and "11,111" not in text


def test_speed_table_of_a_task_without_peers():
    text = report.speed_tables([a_record("cuda-ppo-2048", [a_run(0, "parnassus", 1e6)])])
    assert "1,000,000" in text


def test_the_readme_has_a_row_for_each_task():
    rates = {"parnassus": 300.0, "sb3": 100.0, "sb3, 1 thread": 200.0, "sbx": 300.0}
    record = a_record("td3-halfcheetah", [a_run(r, side, rate) for r in (0, 1) for side, rate in rates.items()])
    row = report.readme_row(record)
    assert row[1:] == ["300", "sb3 3.00 (2.2); sb3, 1 thread 1.50 (2.2); sbx 1.00 (1.5)", "1 of 3"]
    alone = a_record("reinforce-gymnax-256", [a_run(0, "parnassus", 5e5)])
    assert report.readme_row(alone)[1:] == ["500,000", "(100,000 steps/s)", "yes"]
    assert report.readme_row(a_record("cuda-ppo-2048", [a_run(0, "parnassus", 1e6)]))[3] == ""


def test_between_markers_replaces_only_what_is_between():
    page = "before\n<!-- speed:begin -->\nold\n<!-- speed:end -->\nafter"
    changed = report.between_markers(page, "speed", "new")
    assert changed == "before\n<!-- speed:begin -->\n\nnew\n\n<!-- speed:end -->\nafter"
    assert report.between_markers(changed, "speed", "new") == changed
    with pytest.raises(ValueError, match="learning:begin"):
        report.between_markers(page, "learning", "new")


def test_the_page_has_all_its_markers(tmp_path: Path):
    page = tmp_path / "RESULTS.md"
    page.write_text(report.RESULTS_PAGE.read_text())
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text())
    report.write(page, readme)
    assert "td3-hopper" in page.read_text() and "td3-hopper" in readme.read_text()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_tasks_are_complete(task):
    steps_per_iteration = task.num_envs * (
        task.hyperparameters.get("n_steps") or task.hyperparameters.get("num_steps", 1)
    )
    assert task.chunk_steps % steps_per_iteration == 0, "a chunk is a whole number of iterations, on every side"
    peers = (SB3_PPO, SB3_SAC, SB3_A2C, SB3_TRPO, SB3_DQN, SB3_DDPG, SB3_TD3, REJAX_PPO)
    if task.hyperparameters.keys() not in [peer.keys() for peer in peers]:  # then they are ours
        algorithm_class(task.algorithm)(**task.hyperparameters)
        assert all(side.python == "parnassus" for side in task.sides)
    names = [side.name for side in task.sides]
    assert len(set(names)) == len(names) and names[0] == "parnassus"
    for side in task.sides:
        job = json.loads(json.dumps(task.job(side), allow_nan=False))
        assert job["side"] == side.name and job["chunks"] >= 2
        assert (speed.WORKERS / f"{side.worker}_worker.py").exists()
        if side.python != "parnassus":
            assert (ROOT / "benchmarks" / "peers" / f"{side.python}.txt").exists()


def test_every_bar_of_the_issue_is_there():
    bars = {(name, side.name): side.bar for name, task in TASKS.items() for side in task.sides if side.bar}
    expected = {
        ("ppo-cartpole-8", "sb3"): 9.0,
        ("ppo-cartpole-8", "sbx"): 5.0,
        ("ppo-halfcheetah-8", "sb3"): 4.0,
        ("ppo-halfcheetah-8-envpool", "sb3"): 6.0,
        ("ppo-halfcheetah-1", "sb3"): 4.5,
        ("a2c-cartpole-8", "sb3"): 5.0,
        ("trpo-halfcheetah-8", "sb3"): 5.0,
        **{
            (f"{name}-halfcheetah", side): bar
            for name in ("sac", "td3", "ddpg")
            for side, bar in (("sb3", 2.2), ("sbx", 1.5))
        },
        **{("dqn-cartpole", side): 5.0 for side in ("sb3", "sbx")},
        **{(f"ppo-gymnax-{n}", "rejax"): 1.2 for n in (8, 64, 256)},
        ("ppo-gymnax-16-seeds", "one seed"): 1.8,
        ("sac-gymnax-16-seeds", "one seed"): 1.5,
    }
    assert expected.items() <= bars.items()


def test_a_worker_refuses_a_peer_with_other_defaults(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(speed.WORKERS))
    from clock import check_defaults

    check_defaults("peer", {"gamma": 0.99, "other": 1}, {"gamma": 0.99})
    with pytest.raises(SystemExit, match="gamma"):
        check_defaults("peer", {"gamma": 0.9}, {"gamma": 0.99})


def test_a_clock_keeps_the_first_chunk_apart(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.syspath_prepend(str(speed.WORKERS))
    from clock import Clock

    clock = Clock({"chunks": 2, "started": 100.0})
    clock.marks = [(0, 101.0), (10, 106.0), (20, 107.0), (40, 109.0)]
    assert clock.is_done
    clock.report(["pytest"])
    line = json.loads(capsys.readouterr().out)
    assert line["steps_per_second"] == 10.0  # 30 steps in 3 s
    assert line["chunk_rates"] == [10.0, 10.0]
    assert line["compile_seconds"] == 3.5  # 5 s, where a later chunk takes 1.5
    assert line["startup_seconds"] == 6.0
    assert line["versions"]["pytest"] == pytest.__version__


def test_quick_jobs_are_short():
    for task in TASKS.values():
        assert all(task.job(side, quick=True)["chunks"] == 2 for side in task.sides)


def test_a_learning_bar_holds_for_the_mean_or_for_a_number_of_seeds():
    mean, count = SETTINGS["ppo-halfcheetah"], SETTINGS["ppo-cartpole"]
    assert mean.is_met([4000.0, 4500.0, 5000.0])
    assert not mean.is_met([4000.0, 4500.0, 4900.0])
    assert not mean.is_met([9000.0, 9000.0]), "seeds are missing"
    assert count.is_met([500.0] * 9 + [100.0])
    assert not count.is_met([500.0] * 8 + [474.0, 100.0])


def test_finished_seeds_are_kept_and_replaced(tmp_path: Path):
    def finished(value: float) -> dict:
        return {"rows": [[50, "training", 1.0], [100, "evaluation", value]], "config": {}, "seconds": 1.0}

    learning.keep("ppo-pendulum", 1, finished(-150.0), tmp_path)
    learning.keep("ppo-pendulum", 0, finished(-250.0), tmp_path)
    learning.keep("ppo-pendulum", 1, finished(-170.0), tmp_path)
    rows = report.read_learning("ppo-pendulum", tmp_path)
    assert [(row["seed"], row["kind"], row["return"]) for row in rows] == [
        (0, "training", 1.0),
        (0, "evaluation", -250.0),
        (1, "training", 1.0),
        (1, "evaluation", -170.0),
    ]
    about = json.loads((tmp_path / "ppo-pendulum.json").read_text())
    assert list(about["runs"]) == ["0", "1"] and about["runs"]["1"]["command"].endswith("--seeds 1")
    assert not list(tmp_path.glob("*.tmp"))
    text = report.learning_table(tmp_path)
    row = next(line for line in text.splitlines() if line.startswith("| ppo-pendulum"))
    assert "2 of 10" in row and "-210.0" in row and "**no**" in row
    learning.keep("ppo-pendulum", 0, finished(-200.0), tmp_path)
    row = next(line for line in report.learning_table(tmp_path).splitlines() if line.startswith("| ppo-pendulum"))
    assert "2 of 10" in row and "-185.0" in row and "| too few seeds |" in row


def test_a_seed_that_was_interrupted_goes_on(tmp_path: Path):
    """To the same rows; one with other hyper-parameters begins anew."""
    setting = Setting("q-learning", "FrozenLake-v1", 4_000, 1, None)
    whole = learning.train(setting, 3, tmp_path / "whole")
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    configuration = json.loads((cut / "config.json").read_text())
    algorithm, options = preset("q-learning", "FrozenLake-v1")
    shutil.rmtree(cut)
    run = pa.train(algorithm, "FrozenLake-v1", 4_000, seed=3, run=cut, target_return=-1.0, quiet=True, **options)
    assert run.steps < 4_000
    config = json.loads((cut / "config.json").read_text())
    (cut / "config.json").write_text(json.dumps({**config, "target_return": None}))
    again = learning.train(setting, 3, cut)
    assert again["rows"] == whole["rows"] and "resumed" in again["config"] and "resumed" not in configuration
    other = dataclasses.replace(setting, changes={"discount": 0.5})
    assert "resumed" not in learning.train(other, 3, cut)["config"]


def test_tasks_change_only_what_their_algorithms_have():
    for setting in SETTINGS.values():
        algorithm, _ = preset(setting.algorithm, setting.env)
        assert dataclasses.replace(algorithm, **setting.changes) != algorithm or not setting.changes


def test_milestones_are_evaluated_in_both_ways(tmp_path: Path):
    """On the way and at the end; the training itself is not disturbed by it."""
    milestones = (Milestone(500, 1.0, 0.0), Milestone(1_000, 1.0, 0.0))
    setting = Setting("q-learning", "FrozenLake-v1", 1_000, 1, 0.0, milestones=milestones)
    result = learning.train(setting, 3, tmp_path / "a")
    evaluations = [(steps, kind) for steps, kind, _ in result["rows"] if kind != "training"]
    assert evaluations == [(s, kind) for s in (500, 1_000) for kind in ("evaluation", "stochastic")]
    plain = learning.train(dataclasses.replace(setting, milestones=()), 3, tmp_path / "b")
    curves = [[row for row in r["rows"] if row[1] == "training"] for r in (result, plain)]
    assert curves[0] == curves[1] and len(curves[0]) >= 10


def test_milestone_table(tmp_path: Path):
    """Tianshou's TRPO on HalfCheetah at 100,000: 365 ± 116, so the bar is 249; at 500,000: 3590 ± 788."""
    for seed, (deterministic, stochastic) in enumerate([(200.0, 300.0), (310.0, 150.0), (300.0, 240.0)]):
        rows = [[100_000, "evaluation", deterministic], [100_000, "stochastic", stochastic]]
        learning.keep("trpo-halfcheetah", seed, {"rows": rows, "config": {}, "seconds": 1.0}, tmp_path)
    text = report.milestone_table(tmp_path)
    first, *_ = (line for line in text.splitlines() if line.startswith("| trpo-halfcheetah"))
    assert "| 270 (200 to 310) | 230 (150 to 300) | 365 ± 116 | 249 | deterministic only |" in first
    assert "trpo-halfcheetah" not in report.learning_table(tmp_path)


def test_the_startup_table_holds_measurements_against_limits():
    rows = [
        {"what": "help", "value": 0.5, "unit": "s", "limit": 2.0},
        {"what": "x", "value": 3.0, "unit": "s", "limit": 2.0},
    ]
    text = report.startup_table([{**a_record("startup", []), "rows": rows}])
    assert "| help | 0.50 s | 2 s | yes |" in text and "| x | 3.00 s | 2 s | **no** |" in text


def test_the_tabular_table_holds_means_against_the_book(tmp_path: Path):
    rows = [
        tabular.Row("near", np.array([1.0, 2.0, 3.0]), 2.3),
        tabular.Row("far", np.array([1.0, 1.1, 0.9]), 2.3),
        tabular.Row("far, but who knows", np.array([1.0, 1.1, 0.9]), 2.3, 1.0),
        tabular.Row("computed", np.array([0.74419]), 0.7442),
    ]
    tabular.write(tmp_path / "walk.csv", rows)
    lines = report.tabular_table(tmp_path).splitlines()
    assert lines[2] == "| walk | near | 3 | 2 | 0.8684 to 3.132 | 2.3 | yes |"
    assert lines[3].endswith("| 2.3 | **no** |") and lines[4].endswith("| 2.3 ± 2 | yes |")
    assert lines[5] == "| walk | computed | 1 | 0.7442 | exact | 0.7442 | yes |"


def test_the_table_of_measurements():
    rows = [
        {"what": "fast", "value": 3e6, "unit": "steps/s", "limit": None, "least": 2e6},
        {"what": "large", "value": 5.0, "unit": "GiB", "limit": 4.0, "least": None},
        {"what": "long", "value": 0.5, "unit": "s", "limit": None, "least": None},
    ]
    lines = report.measurements_table([{**a_record("tabular", []), "rows": rows}]).splitlines()
    assert lines[2] == "| fast | 3,000,000 steps/s | at least 2,000,000 | yes |"
    assert lines[3] == "| large | 5 GiB | at most 4 | **no** |" and lines[4] == "| long | 0.5 s |  |  |"


def test_values_at_the_ends_of_episodes():
    value, ended = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[0, 1, 0, 1]])
    assert tabular.after_episodes(value, ended, 2).tolist() == [[2.0, 4.0]]
    with pytest.raises(RuntimeError, match="only 2 of 3 episodes ended"):
        tabular.after_episodes(value, ended, 3)


@pytest.mark.reuses_keys
def test_an_experiment_runs(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert tabular.main(["--experiment", "td-and-monte-carlo", "--runs", "2", "--output", str(tmp_path)]) == 0
    assert "TD, step size 0.05, after 100 episodes" in capsys.readouterr().out
    assert (tmp_path / "td-and-monte-carlo.png").exists()
    assert "td-and-monte-carlo" in report.tabular_table(tmp_path)


def test_the_arithmetic_table_holds_rates_against_the_limit():
    rows = [{"algorithm": "sac", "mflop": 590.0, "ms": [4.0, 5.0, 6.0], "gflops": [90.0, 100.0], "limit": [200.0] * 2}]
    text = report.arithmetic_table([{**a_record("arithmetic", []), "rows": rows, "least": 0.6}])
    assert "| sac | 590 | 5.00 (4.00 to 6.00) | 95 | 200 | 0.47 (0.45 to 0.50) | 0.6 | **no**, 79% of it |" in text


def test_the_command_line_refuses_a_task_of_another_device(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit, match="2"):
        speed.parse(["--task", "cuda-ppo-2048"])
    assert "not for --device cpu" in capsys.readouterr().err


def test_overestimation_is_measured_and_drawn(tmp_path: Path):
    from benchmarks import overestimation

    arguments = ["--steps", "20", "--points", "2", "--seeds", "0", "--episodes", "4", "--output", str(tmp_path)]
    assert overestimation.main(arguments) == 0
    rows = overestimation.read(tmp_path / "jax-Pendulum-v1.csv")
    assert [row["method"] for row in rows] == [m for m in overestimation.METHODS for _ in range(2)]
    assert all(float(row["returned"]) < 0.0 for row in rows)
    assert (tmp_path / "jax-Pendulum-v1.png").stat().st_size > 10_000
    assert overestimation.main(arguments) == 0  # nothing is measured twice
    assert overestimation.read(tmp_path / "jax-Pendulum-v1.csv") == rows


def test_what_a_planner_is_measured_in():
    """The preset, told of its environment as `train` would, whether it plans itself or its teacher does."""
    for name in ("mpc", "distillation"):
        algorithm, simulator = planning.planning_in("jax:Pendulum-v1", name)
        assert getattr(algorithm, "teacher", algorithm).simulator.env is not None
        assert set(simulator.observation_space.spaces) == {"observation", "state"}
    assert planning.median([3.0, 1.0, 2.0]) == 2.0


def test_random_steps_of_a_shaken_world():
    """The noise moves what the pendulum itself leaves alone: two steps from one state, by different keys."""
    env = world_models.worlds()["Pendulum, shaken"]
    trajectory = world_models.trajectories(env, 40, seed=0)
    assert trajectory.reward.shape == (4, 10) and np.abs(trajectory.action).max() <= 1.0
    spec = Spec(env.observation_space, env.action_space, 10)
    assert world_models.replay_of(trajectory, spec).size == 40
    state, _ = env.reset(jax.random.key(0))
    speeds = [env.step(state, jax.numpy.zeros(1), jax.random.key(k)).observation[2] for k in (1, 2)]
    assert speeds[0] != speeds[1]


def test_the_picture_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(world_models, "PICTURE", tmp_path / "images" / "picture.png")
    covered = {which: np.linspace(0.2, 0.9, 9) for which in ("the ensemble's", "recalibrated")}
    world_models.draw_curves({name: (covered, np.geomspace(0.01, 1.0, 20)) for name in "abc"})
    assert (tmp_path / "images" / "picture.png").read_bytes().startswith(b"\x89PNG")
