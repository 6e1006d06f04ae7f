"""Kept learning runs: how good the policies get, with the library's own presets.

    python -m benchmarks.learning --task ppo-cartpole             # the seeds that are not there yet
    python -m benchmarks.learning --task ppo-cartpole --seeds 3 4 --again
    python -m benchmarks.learning --list

Each seed trains in a process of its own, two at a time, evaluates the deterministic policy (over 100 episodes, where
its task says no other number), and is added to benchmarks/results/learning/TASK.csv as soon as it is done. TASK.json
beside it says with what each seed was made: command, commit, versions, machine, configuration. A seed that was
interrupted goes on from its last checkpoint when it is asked for again (tasks with milestones begin anew).
"""

import argparse
import csv
import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.report import LEARNING, read_learning
from benchmarks.speed import ROOT, commit, machine
from benchmarks.tasks import SETTINGS, Setting

RUNS = ROOT / "runs" / "learning"  # of seeds that are not finished
EPISODES_ON_THE_WAY = 20  # of each evaluation at a milestone
EVALUATION_SEED = 10_000  # and the training's: its episodes are not those that training began with
COLUMNS = ("seed", "steps", "kind", "return")


def main(arguments: list[str] | None = None) -> int:
    """Train the seeds asked for; 1 if any failed."""
    options = parse(arguments)
    if options.list:
        for name, setting in SETTINGS.items():
            print(f"{name}: {setting.algorithm} on {setting.env}, {setting.steps:,} steps, {setting.seeds} seeds")
        return 0
    if options.child is not None:
        directory = RUNS / f"{options.task[0]}-{options.child}"
        print(json.dumps(train(SETTINGS[options.task[0]], options.child, directory)), flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        return 0
    failed = False
    for name in options.task or SETTINGS:
        seeds = options.seeds if options.seeds is not None else list(range(SETTINGS[name].seeds))
        finished = {row["seed"] for row in read_learning(name)}
        wanted = [seed for seed in seeds if options.again or seed not in finished]
        with ThreadPoolExecutor(options.jobs) as pool:
            runs = {pool.submit(train_in_process, name, seed): seed for seed in wanted}
            for run in as_completed(runs):
                seed = runs[run]
                try:
                    result = run.result()
                except RuntimeError as error:
                    failed = True
                    print(f"{name} seed {seed} failed:\n{error}", file=sys.stderr, flush=True)
                    continue
                keep(name, seed, result)
                print(f"{name} seed {seed}: {result['rows'][-1][2]:.2f} in {result['seconds']:.0f} s", flush=True)
        report.write()
    return int(failed)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=sorted(SETTINGS), metavar="TASK", help=", ".join(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, help="these seeds (default: as many as the task has, from 0)")
    parser.add_argument("--again", action="store_true", help="train seeds again that are already there")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time (default: 2)")
    parser.add_argument("--list", action="store_true", help="list the tasks")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)  # the seed to train in this very process
    return parser.parse_args(arguments)


def train(setting: Setting, seed: int, directory: Path) -> dict:
    """Train one seed in this process and evaluate it: rows of (steps, kind, return), configuration, seconds.

    `directory` keeps the run meanwhile, and is where one that was interrupted goes on.
    """
    from parnassus import objectives
    from parnassus.presets import preset

    began = time.perf_counter()
    kinds = {"objective": getattr(objectives, setting.objective)} if setting.objective else {}
    algorithm, options = preset(setting.algorithm, setting.env, **kinds)
    algorithm, num_envs = dataclasses.replace(algorithm, **setting.changes), setting.num_envs or options["num_envs"]
    if setting.milestones:
        rows, config = with_milestones(setting, algorithm, num_envs, seed)
    else:
        rows, config = in_a_run(setting, algorithm, num_envs, seed, directory)
    return {
        "rows": [[steps, kind, round(value, 3)] for steps, kind, value in rows if value == value],
        "config": config,
        "seconds": round(time.perf_counter() - began, 1),  # of this process: less than all, where config has "resumed"
    }


def in_a_run(setting: Setting, algorithm: Any, num_envs: int, seed: int, directory: Path) -> tuple[list[tuple], dict]:
    """As a user trains: a run directory, evaluated at the end."""
    import parnassus as pa

    run = unfinished(directory, algorithm, setting.steps)
    if run is None:
        shutil.rmtree(directory, ignore_errors=True)
        run = pa.train(algorithm, setting.env, setting.steps, seed=seed, num_envs=num_envs, run=directory, quiet=True)
    elif run.steps < setting.steps:
        run = pa.resume(directory, quiet=True)
    evaluation = run.evaluate(setting.episodes, seed=EVALUATION_SEED + seed)
    config = json.loads((directory / "config.json").read_text())
    with (directory / "metrics.csv").open() as file:
        curve = [(int(float(row["steps"])), row.get("episode/return", "")) for row in csv.DictReader(file)]
    rows = [(steps, "training", float(value or "nan")) for steps, value in curve]
    return [*rows, (setting.steps, "evaluation", evaluation.mean)], config


def unfinished(directory: Path, algorithm: Any, steps: int) -> Any:
    """The run that was interrupted there; None if there is none, or one of another plan."""
    import parnassus as pa

    try:
        run = pa.load(directory)
    except pa.BadInput:
        return None
    return run if run.algorithm == algorithm and run.config["steps"] == steps else None


def with_milestones(setting: Setting, algorithm: Any, num_envs: int, seed: int) -> tuple[list[tuple], dict]:
    """The same training, interrupted at each milestone to evaluate the policy, deterministic and as it explores."""
    import jax

    import parnassus as pa
    from parnassus import configuration, envs, training
    from parnassus.collect import HostCollector

    configuration.configure()
    collector = HostCollector(envs.make(setting.env, num_envs))
    examiner = envs.make(setting.env, num_envs)
    config = {"hyperparameters": configuration.encode_fields(algorithm), "num_envs": num_envs, "env": setting.env}
    algorithm = training.arrays(algorithm)
    rows: list[tuple] = []
    left = list(setting.milestones)
    state = training.init(algorithm, collector, jax.random.key(seed), setting.steps)
    for chunk in training.train(algorithm, collector, state, setting.steps):
        rows.append((chunk.steps, "training", float(chunk.metrics["episode/return"])))
        if left and chunk.steps >= left[0].steps:
            milestone = left.pop(0)
            behavior = algorithm.behavior(chunk.state.learner)
            for kind, explore in (("evaluation", False), ("stochastic", True)):
                result = pa.evaluate(
                    algorithm, behavior, examiner, EPISODES_ON_THE_WAY, EVALUATION_SEED + seed, explore=explore
                )
                rows.append((milestone.steps, kind, result.mean))
    collector.close()
    examiner.close()
    return rows, config | configuration.describe()


def train_in_process(name: str, seed: int) -> dict:
    """`train` in a fresh process. Raises RuntimeError with what the process said last."""
    command = [sys.executable, "-m", "benchmarks.learning", "--task", name, "--child", str(seed)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = process.stdout.strip().splitlines()
    if process.returncode or not lines:
        raise RuntimeError(process.stderr.strip()[-3000:] or f"exit status {process.returncode}")
    return json.loads(lines[-1])


def keep(name: str, seed: int, result: dict, folder: Path = LEARNING) -> None:
    """Put a finished seed into the task's CSV and JSON, in place of an older run of the same seed."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for row in read_learning(name, folder) if row["seed"] != seed]
    rows += [{"seed": seed, "steps": s, "kind": kind, "return": value} for s, kind, value in result["rows"]]
    rows.sort(key=lambda row: row["seed"])  # stable: the steps of a seed stay in order
    path = folder / f"{name}.json"
    about = json.loads(path.read_text()) if path.exists() else {"task": name, "runs": {}}
    about["runs"][str(seed)] = {
        "command": shlex.join(["python", "-m", "benchmarks.learning", "--task", name, "--seeds", str(seed)]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "seconds": result["seconds"],
        "config": result["config"],
    }
    about["runs"] = dict(sorted(about["runs"].items(), key=lambda item: int(item[0])))
    replace(path, json.dumps(about, indent=1) + "\n")
    lines = [",".join(COLUMNS), *[",".join(str(row[column]) for column in COLUMNS) for row in rows]]
    replace(folder / f"{name}.csv", "\n".join(lines) + "\n")  # last: a seed counts as finished once it is here


def replace(path: Path, text: str) -> None:
    """Write a whole file or leave the old one."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
