"""What every worker shares: reading the clock at the ends of chunks, and one JSON line about it.

A worker is a script: `python WORKER_worker.py '{"task": ..., ...}'`. It imports nothing of this repository but this
file, so that it runs in a peer's own environment.
"""

import json
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version


def read_job() -> dict:
    """The job on the command line."""
    return json.loads(sys.argv[1])


class Clock:
    """Marks (environment steps so far, seconds) at the start of training and at the end of each chunk."""

    def __init__(self, job: dict) -> None:
        self.job = job
        self.marks: list[tuple[int, float]] = []

    def mark(self, steps: int) -> None:
        """Training has taken so many steps by now, all of its work done."""
        self.marks.append((int(steps), time.time()))

    @property
    def is_done(self) -> bool:
        """Whether the start, the first chunk and the chunks to be timed are all marked."""
        return len(self.marks) >= self.job["chunks"] + 2

    def report(self, packages: list[str], **more: object) -> None:
        """Print the measurement.

        steps_per_second: from the end of the first chunk to the end of the last. compile_seconds: what the first chunk
        took longer than a later one; compilation and other one-time work. startup_seconds: from the process's start to
        the end of the first chunk, imports included.
        """
        (_, began), (first_steps, first), *_, (last_steps, last) = self.marks
        rates = [
            (b_steps - a_steps) / (b - a)
            for (a_steps, a), (b_steps, b) in zip(self.marks[1:-1], self.marks[2:], strict=True)
        ]
        steps_per_second = (last_steps - first_steps) / (last - first)
        chunk_seconds = (last - first) / len(rates)
        print(
            json.dumps(
                {
                    "steps_per_second": round(steps_per_second, 1),
                    "chunk_rates": [round(rate, 1) for rate in rates],
                    "timed_steps": last_steps - first_steps,
                    "compile_seconds": round(max(first - began - chunk_seconds, 0.0), 3),
                    "startup_seconds": round(first - self.job.get("started", began), 3),
                    "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                    "versions": versions(packages),
                    **more,
                }
            )
        )


def versions(packages: list[str]) -> dict[str, str]:
    """The installed versions, of those packages that are installed."""
    found = {"python": sys.version.split()[0]}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def check_defaults(name: str, defaults: dict, hyperparameters: dict) -> None:
    """Refuse to measure a peer with settings that are not its own defaults."""
    differ = {k: (v, defaults.get(k)) for k, v in hyperparameters.items() if defaults.get(k) != v}
    if differ:
        raise SystemExit(f"{name}: not its defaults (ours, its): {differ}")
