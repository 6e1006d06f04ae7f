"""Learning curves: return against environment steps, seeds as their interquartile mean with a 95% bootstrap band."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parnassus import configuration
from parnassus.statistics import bootstrap_interval, interquartile_mean
from parnassus.tracking import read_columns
from parnassus.types import BadInput

# Okabe and Ito's colours, which the colour-blind can tell apart; the dashes do it in black and white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
_INK = "#333333"


class Curve(NamedTuple):
    """The runs of one algorithm on one environment."""

    algorithm: str
    env: str
    steps: np.ndarray  # [K], environment steps that every run has taken
    returns: np.ndarray  # [runs, K]

    @property
    def center(self) -> np.ndarray:
        """[K]: the interquartile mean over runs."""
        return np.asarray(interquartile_mean(self.returns, axis=0))

    @property
    def band(self) -> tuple[np.ndarray, np.ndarray] | None:
        """[K], [K]: its 95% interval; None for a single run."""
        if len(self.returns) < 2:
            return None
        low, high = bootstrap_interval(self.returns, lambda x: interquartile_mean(x, axis=0))
        return np.asarray(low), np.asarray(high)


def plot(directories: Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Draw the learning curves of runs as a PNG; returns its path, by default curve.png in the first directory.

    Runs of the same algorithm on the same environment are seeds of one curve; a directory of several seeds stands for
    all of them. Raises BadInput if a directory is no run, if a run has no finished episode, or without matplotlib.
    """
    path = check_name(output if output is not None else Path(directories[0]) / "curve.png")
    curves = read_curves([Path(directory) for directory in directories])
    figure = new_figure((6.0, 3.8))
    _draw(figure.add_subplot(), curves)
    return save(figure, path)


def new_figure(size: tuple[float, float]) -> Any:
    """An empty figure of so many inches. Raises BadInput without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BadInput('plots need matplotlib: pip install "parnassus[plot]"') from error
    # No pyplot: it keeps state, and may look for a screen.
    figure = Figure(figsize=size, dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_name(output: str | Path) -> Path:
    """The path of a picture. Raises BadInput if it is not one of a PNG."""
    path = Path(output)
    if path.suffix.lower() != ".png":
        raise BadInput(f"the picture is a PNG, so its name must end in .png, not {path.name!r}")
    return path


def save(figure: Any, output: str | Path) -> Path:
    """Write a figure; its directory is made. Raises BadInput if the name is not one of a PNG."""
    path = check_name(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def read_curves(directories: Sequence[Path]) -> list[Curve]:
    """The curves of run directories, in their order. Raises BadInput as `plot` does."""
    runs: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    for directory in _single_runs(directories):
        config = configuration.read(directory)
        env = config["env"] if isinstance(config["env"], str) else str(config["env"].get("object"))
        columns = read_columns(directory / "metrics.csv")
        if not columns or np.isnan(columns["episode/return"]).all():
            raise BadInput(f"{directory} has no finished episode to plot")
        known = ~np.isnan(columns["episode/return"])
        points = columns["steps"][known], columns["episode/return"][known]
        runs.setdefault((config["algorithm"], env), []).append(points)
    return [Curve(*name, *_on_common_steps(points, name)) for name, points in runs.items()]


def _single_runs(directories: Sequence[Path]) -> list[Path]:
    """The directories, with those of several seeds replaced by their seeds'; each once."""
    singles: dict[Path, None] = {}
    for directory in directories:
        seeds = configuration.read(directory).get("seeds")
        for path in [directory] if seeds is None else [directory / f"seed-{seed}" for seed in seeds]:
            singles[path.resolve()] = None
    return list(singles)


def _on_common_steps(
    points: list[tuple[np.ndarray, np.ndarray]], name: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """steps [K] that every run has, and the returns there [runs, K]: interpolated where a run has no row."""
    first, last = max(steps[0] for steps, _ in points), min(steps[-1] for steps, _ in points)
    grid = np.unique(np.concatenate([steps for steps, _ in points]))
    grid = grid[(grid >= first) & (grid <= last)]
    if not grid.size:
        raise BadInput(f"the runs of {' on '.join(name)} have no steps in common")
    return grid, np.stack([np.interp(grid, steps, returns) for steps, returns in points])


def _draw(axes: Any, curves: list[Curve]) -> None:
    for i, curve in enumerate(curves):
        color, dash = COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]
        marker = "o" if len(curve.steps) == 1 else None
        axes.plot(curve.steps, curve.center, dash, color=color, lw=1.6, marker=marker, label=_label(curve, curves))
        if curve.band is not None:
            axes.fill_between(curve.steps, *curve.band, color=color, alpha=0.2, lw=0)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return (sum of rewards per episode)")
    axes.set_title(_title(curves), fontsize=10, loc="left", color=_INK)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(_steps_text)
    axes.margins(x=0.02)
    axes.grid(axis="y", color="#DDDDDD", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=_INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#888888")
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=9, handlelength=2.6, loc="best")


def _title(curves: list[Curve]) -> str:
    """What all curves share."""
    algorithms, envs = {curve.algorithm for curve in curves}, {curve.env for curve in curves}
    counts = {len(curve.returns) for curve in curves}
    shared = [*(algorithms if len(algorithms) == 1 else []), *(envs if len(envs) == 1 else [])]
    title = " on ".join(shared) if len(shared) == 2 else "".join(shared)
    if counts == {1}:
        return title
    seeds = f"{counts.pop()} seeds" if len(counts) == 1 else "seeds"
    note = f"interquartile mean of {seeds}, 95% interval"
    return f"{title}: {note}" if title else note


def _label(curve: Curve, curves: list[Curve]) -> str:
    """What is this curve's own."""
    own = []
    if len({other.algorithm for other in curves}) > 1:
        own.append(curve.algorithm)
    if len({other.env for other in curves}) > 1:
        own.append(curve.env)
    name = " on ".join(own)
    if len({len(other.returns) for other in curves}) == 1:
        return name
    count = len(curve.returns)
    return f"{name} ({count} seed{'s' if count > 1 else ''})"


def _steps_text(steps: float, _: int | None = None) -> str:
    """50,000 as 50k."""
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(steps) >= unit:
            return f"{steps / unit:g}{suffix}"
    return f"{steps:g}"
