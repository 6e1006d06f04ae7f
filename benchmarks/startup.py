"""How long the first seconds are, and how much memory SAC's replay takes: `python -m benchmarks.startup`.

Appends a line to benchmarks/results/startup.jsonl and brings benchmarks/RESULTS.md up to date.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import report
from benchmarks.speed import ROOT, commit, machine, run
from benchmarks.tasks import TASKS

MAIN = "import sys; from parnassus.cli import main; sys.exit(main())"
REPEATS = 5


def command_line(*arguments: str, **environment: str) -> float:
    """Seconds that `parnassus ARGUMENTS` takes in a fresh process. Raises RuntimeError if it fails."""
    began = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        cwd="/tmp",
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise RuntimeError(f"parnassus {' '.join(arguments)}: {process.stderr.strip()[-2000:]}")
    return time.perf_counter() - began


def compile_seconds(directory: Path) -> float:
    """What a run says it spent on compilation."""
    with (directory / "metrics.csv").open() as file:
        return sum(float(row["time/compile_seconds"] or 0) for row in csv.DictReader(file))


def starts(env: str) -> list[dict]:
    """PPO on `env`, twice with the same compilation cache, which is empty the first time."""
    with tempfile.TemporaryDirectory() as folder:
        total, compiling = [], []
        for attempt in ("first", "second"):
            directory = Path(folder) / attempt
            arguments = ("train", "ppo", env, "--steps", "20000", "--run", str(directory), "--quiet")
            total.append(command_line(*arguments, JAX_COMPILATION_CACHE_DIR=f"{folder}/cache"))
            compiling.append(compile_seconds(directory))
    what = f"PPO on {env}, 20,000 steps"
    return [
        row(f"{what}: compilation, cold cache", compiling[0], "s", 5.0),
        row(f"{what}: compilation, second start", compiling[1], "s", compiling[0]),
        row(f"{what}: whole command, cold cache", total[0], "s"),
        row(f"{what}: whole command, second start", total[1], "s", total[0]),
    ]


def row(what: str, value: float, unit: str, limit: float | None = None) -> dict:
    """A measurement and what it should be at most."""
    return {"what": what, "value": round(value, 3), "unit": unit, "limit": limit and round(limit, 3)}


def main() -> None:
    """Measure everything, in fresh processes."""
    task = TASKS["sac-halfcheetah"]
    sac = run(task, task.sides[0])
    if "error" in sac:
        raise RuntimeError(sac["error"])
    help_seconds = statistics.median(command_line("--help") for _ in range(REPEATS))
    rows = [
        row(f"`parnassus --help` (median of {REPEATS})", help_seconds, "s", 2.0),
        *starts("jax:CartPole-v1"),
        *starts("CartPole-v1"),
        row("SAC on HalfCheetah-v5, replay of 1,000,000: peak memory", sac["peak_memory_mb"], "MB", 1024),
    ]
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "command": "python -m benchmarks.startup",
        "machine": machine(),
        "rows": rows,
    }
    with report.STARTUP.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(report.startup_table([record]))
    report.write()


if __name__ == "__main__":
    main()
