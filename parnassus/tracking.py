"""Where metrics go: metrics.csv, TensorBoard events, a progress bar. Sinks have `log(steps, metrics)` and `close()`."""

import csv
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

_LINE_SECONDS = 10.0  # between the plain lines that stand for a progress bar where there is no terminal


class Sink(Protocol):
    """Something that keeps or shows metrics."""

    def log(self, steps: int, metrics: Mapping[str, float]) -> None:
        """Metrics after `steps` environment steps."""

    def close(self) -> None:
        """Nothing follows."""


class CSVSink:
    """metrics.csv: a row per chunk, columns `steps` and then the metrics by name; what is not known is left empty.

    Each row is on the disk's way when `log` returns. With `resume_at`, rows beyond that step (of a run that was killed
    after its last checkpoint) are dropped; the chunks that write them again give the same numbers.
    """

    def __init__(self, path: Path, resume_at: int = 0) -> None:
        self.path = path
        self._names: list[str] = []
        if path.exists():
            rows = [row for row in read_rows(path) if row["steps"] <= resume_at]
            self._names = _names(rows)
            self._write_all(rows)

    def log(self, steps: int, metrics: Mapping[str, float]) -> None:
        """Append a row."""
        row = {"steps": float(steps), **metrics}
        if new := set(metrics) - set(self._names):
            rows = read_rows(self.path) if self.path.exists() else []
            self._names = sorted(new | set(self._names))
            self._write_all([*rows, row])
            return
        with open(self.path, "a", newline="") as file:
            csv.writer(file).writerow(self._cells(row))

    def close(self) -> None:
        """Nothing to do: no file is left open."""

    def _cells(self, row: Mapping[str, float]) -> list[str]:
        return [str(int(row["steps"])), *(_cell(row.get(name, np.nan)) for name in self._names)]

    def _write_all(self, rows: list[dict[str, float]]) -> None:
        temporary = self.path.with_name(self.path.name + ".tmp")
        with open(temporary, "w", newline="") as file:
            csv.writer(file).writerows([["steps", *self._names], *(self._cells(row) for row in rows)])
        os.replace(temporary, self.path)


def _cell(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


def _names(rows: list[dict[str, float]]) -> list[str]:
    return sorted({name for row in rows for name in row} - {"steps"})


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv; a last line that was cut off while it was written is left out."""
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    header, *rows = csv.reader(whole.splitlines()) if whole else [["steps"]]
    return [
        dict(zip(header, (float(cell) if cell else np.nan for cell in row), strict=True))
        for row in rows
        if len(row) == len(header)
    ]


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of a metrics.csv, NaN where nothing is known; empty if there is none."""
    rows = read_rows(path) if path.exists() else []
    names = ["steps", *_names(rows)] if rows else []
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}


class TensorBoardSink:
    """TensorBoard events in the run directory."""

    def __init__(self, directory: Path, resume_at: int = 0) -> None:
        from tensorboardX import SummaryWriter  # a second of imports

        self._writer = SummaryWriter(str(directory), purge_step=resume_at + 1 if resume_at else None)

    def log(self, steps: int, metrics: Mapping[str, float]) -> None:
        """Write and flush."""
        for name, value in metrics.items():
            if not np.isnan(value):
                self._writer.add_scalar(name, value, steps)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class Progress:
    """A bar with steps, steps per second, return and time left; a plain line now and then if there is no terminal."""

    def __init__(self, title: str, total: int, start: int = 0) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._title, self._total, self._start = title, total, start
        self._began = self._last_line = time.monotonic()
        self._bar = self._make_bar() if self._console.is_terminal else None

    def _make_bar(self):  # type: ignore[no-untyped-def]  # rich is imported only where it is shown
        from rich import progress

        bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.fields[numbers]}"),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
        )
        self._task = bar.add_task(self._title, total=self._total, completed=self._start, numbers="compiling")
        bar.start()
        return bar

    def log(self, steps: int, metrics: Mapping[str, float]) -> None:
        """Move the bar."""
        speed, score = metrics.get("time/steps_per_second", np.nan), metrics.get("episode/return", np.nan)
        numbers = f"{steps:,}/{self._total:,} steps  {speed:,.0f}/s"
        if not np.isnan(score):
            numbers += f"  return {score:.4g}"
        if self._bar is not None:
            self._bar.update(self._task, completed=steps, numbers=numbers)
            return
        now = time.monotonic()
        if now - self._last_line < _LINE_SECONDS and steps < self._total:
            return
        self._last_line = now
        left = (now - self._began) / max(steps - self._start, 1) * max(self._total - steps, 0)
        print(f"{self._title}: {numbers}  {left:.0f} s left", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
