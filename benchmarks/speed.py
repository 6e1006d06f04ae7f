"""The speed harness: this library and its peers on the same tasks, in the same call, one after the other in turns.

    python -m benchmarks.speed                                # every CPU task, five rounds
    python -m benchmarks.speed --task ppo-cartpole-8 --repeats 3
    python -m benchmarks.speed --quick                        # one short round of each: does everything run?
    python -m benchmarks.speed --device cuda                  # the tasks for an accelerator; needs no peers

A round runs each side of a task once (A B C A B C ...), each time in a fresh process; a ratio compares two runs of the
same round, so that what else the machine does at the time falls on both. Before each run it waits (`--patience`
says how long at most) until other processes are quiet; rounds in which they were not are left out of the table while at
least two others remain. The peers live in `.venv-peers` (benchmarks/peers/install.sh). Measurements are appended to
benchmarks/results/speed.jsonl, a line for each task and call, and `python -m benchmarks.report` (called at the end)
writes them into benchmarks/RESULTS.md.
"""

import argparse
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import report
from benchmarks.tasks import TASKS, Side, Task

ROOT = Path(__file__).resolve().parents[1]
WORKERS = ROOT / "benchmarks" / "workers"
TIMEOUT = 900  # seconds for one run; on a quiet machine none takes a tenth of it


def main(arguments: list[str] | None = None) -> int:
    """Run the tasks asked for; 1 if a worker failed."""
    options = parse(arguments)
    tasks = [TASKS[name] for name in options.task] if options.task else TASKS.values()
    tasks = [task for task in tasks if task.device == options.device]
    print(json.dumps(machine(), indent=2))
    failed = False
    for task in tasks:
        record, errors = measure(task, options)
        failed = failed or bool(errors)
        print("\n" + report.speed_tables([record]), flush=True)
        if not options.quick and record["runs"]:
            options.output.parent.mkdir(exist_ok=True)
            with options.output.open("a") as file:
                file.write(json.dumps(record) + "\n")
    if not options.quick and options.output == report.SPEED:
        report.write()
    return int(failed)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=sorted(TASKS), metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--quick", action="store_true", help="one short round, nothing recorded")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--side", nargs="+", help="only these sides, e.g. parnassus sb3")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for quiet before a run")
    parser.add_argument("--output", type=Path, default=report.SPEED, help="append the measurements to this file")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: must be at least 1")
    wrong = [name for name in options.task or () if TASKS[name].device != options.device]
    if wrong:
        parser.error(f"--task {' '.join(wrong)}: not for --device {options.device}")
    return options


def measure(task: Task, options: argparse.Namespace) -> tuple[dict, list[str]]:
    """Run the task's sides in turns. Returns the record, and the error of each run that failed."""
    sides = [side for side in task.sides if not options.side or side.name in options.side]
    repeats = 1 if options.quick else options.repeats
    record = {
        "task": task.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "command": shlex.join(["python", "-m", "benchmarks.speed", *sys.argv[1:]]),
        "machine": machine(),
        "versions": {},
        "runs": [],
    }
    errors = []
    for round_index in range(repeats):
        for side in sides:
            await_quiet(0.0 if options.quick else options.patience)
            result = run(task, side, options.quick)
            if "error" in result:
                errors.append(f"{task.name}, {side.name}: {result['error']}")
                print(errors[-1], file=sys.stderr, flush=True)
                continue
            record["versions"][side.name] = result.pop("versions")
            record["runs"].append({"round": round_index, "side": side.name, **result})
            print(
                f"{task.name} round {round_index + 1}/{repeats} {side.name}: "
                f"{result['steps_per_second']:,.0f} steps/s, first chunk {result['compile_seconds']:.1f} s longer, "
                f"others use {result['other_cores']:.2f} cores",
                flush=True,
            )
    return record, errors


def run(task: Task, side: Side, quick: bool = False) -> dict:
    """One run of one side in a fresh process: what its worker printed, and how busy everything else was."""
    python = sys.executable if side.python == "parnassus" else ROOT / ".venv-peers" / side.python / "bin" / "python"
    if not Path(python).exists():
        return {"error": f"{python} does not exist; run benchmarks/peers/install.sh first"}
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT) if side.python == "parnassus" else "",
        "PYTHONWARNINGS": "ignore",
    }
    job = {**task.job(side, quick), "started": time.time()}
    command = [str(python), str(WORKERS / f"{side.worker}_worker.py"), json.dumps(job)]
    busy = BusyCores()
    # Not in the repository: MuJoCo writes a log into the working directory.
    try:
        process = subprocess.run(
            command, cwd="/tmp", env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {TIMEOUT} s"}
    other_cores = busy.others()
    lines = process.stdout.strip().splitlines()
    if process.returncode or not lines:
        return {"error": (process.stderr or process.stdout).strip()[-2000:] or f"exit status {process.returncode}"}
    return {**json.loads(lines[-1]), "other_cores": other_cores}


def await_quiet(patience: float) -> None:
    """Return when, over two seconds, other processes used hardly any processor time, or when patience ends."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        busy = BusyCores()
        time.sleep(2.0)
        if not busy.others() > report.QUIET:
            return


class BusyCores:
    """How many cores, on average, worked for anything but our child processes since this object was made."""

    def __init__(self) -> None:
        self.before = (time.monotonic(), self.total(), self.children())

    def others(self) -> float:
        """Mean number of cores; NaN where the system does not say."""
        began, total, children = self.before
        elapsed = time.monotonic() - began
        return round(max(0.0, self.total() - total - (self.children() - children)) / elapsed, 2)

    @staticmethod
    def total() -> float:
        """Seconds that all cores together have been busy, since the system started."""
        try:
            user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
                int, Path("/proc/stat").read_text().split()[1:11]
            )
        except OSError:
            return float("nan")
        return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def children() -> float:
        """Processor seconds of our children that have ended."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime


def machine() -> dict:
    """What the numbers were measured on."""
    facts = {"cpu": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts["cpu"] = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        facts["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (OSError, StopIteration):
        pass
    facts["system"] = f"{platform.system()} {platform.machine()}"
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        facts["gpu"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    return facts


def commit() -> str:
    """The commit that was measured, with a + if tracked files differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    clean = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "parnassus"], capture_output=True, check=False)
    return (head.stdout.strip() if head.returncode == 0 else "none") + ("" if clean.returncode == 0 else "+")


if __name__ == "__main__":
    sys.exit(main())
