"""Benchmarks that are a list of measurements: what, how much, and at most or at least how much it should be.

Each is made of parts, which run in a process of their own and give rows. The rows go to
benchmarks/results/NAME.jsonl, a line for each run, and into benchmarks/RESULTS.md.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from benchmarks import report
from benchmarks.speed import ROOT, commit, machine

REPEATS = 5


def best_of(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Seconds of the fastest call: what else the machine does can only make it slower."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def row(what: str, value: float, unit: str, limit: float | None = None, least: float | None = None) -> dict:
    """A measurement, and what it should be at most, or at least."""
    return {"what": what, "value": float(f"{value:.4g}"), "unit": unit, "limit": limit, "least": least}


def main(name: str, description: str | None, parts: Mapping[str, Callable[[], list[dict]]]) -> None:
    """Measure each part in a fresh process, keep and show."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=parts, help="print the rows of this part alone, and keep nothing")
    options = parser.parse_args()
    if options.part:
        print(json.dumps(parts[options.part]()))
        return
    rows = []
    for part in parts:
        command = [sys.executable, "-m", f"benchmarks.{name}", "--part", part]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        rows += json.loads(done.stdout.splitlines()[-1])
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "command": f"python -m benchmarks.{name}",
        "machine": machine(),
        "rows": rows,
    }
    with report.MEASUREMENTS[name].open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(report.measurements_table([record]))
    report.write()
