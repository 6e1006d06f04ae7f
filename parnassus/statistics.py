"""Aggregates and intervals of results over runs, tasks and episodes (Agarwal et al. 2021).

A handful of deep-RL runs says less than it seems: report the interquartile mean with a bootstrap interval, not the best
seed. NumPy and SciPy only.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit


class Interval(NamedTuple):
    """A confidence interval: floats, or arrays where the statistic is an array."""

    low: np.ndarray | float
    high: np.ndarray | float


class MeanInterval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


def interquartile_mean(x: ArrayLike, axis: int | None = None) -> np.ndarray | float:
    """The mean of the middle half: as robust as the median to outlying runs, and of less variance.

    floor(n / 4) values are dropped at each end. By default over all tasks and runs together, as Agarwal et al. (2021,
    section 4.3) do; along `axis` otherwise. NaN where a value is NaN.
    """
    x = np.asarray(x, dtype=float)
    ordered = np.moveaxis(np.sort(x, axis), axis or 0, 0)  # np.sort(x, None) is flat
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut].mean(axis=0)
    return np.where(np.isnan(ordered[-1]), np.nan, middle)[()]  # NaN sorts last, so it would be cut off unseen


def bootstrap_interval(
    x: ArrayLike,
    statistic: Callable[[np.ndarray], np.ndarray | float] = interquartile_mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    stratified: bool = False,
) -> Interval:
    """Percentile bootstrap: the middle `level` of `statistic` over resamples of the runs, drawn with replacement.

    x [runs, ...] has one row for each run (a score, a learning curve). With `stratified`, x is [tasks, runs, ...] and
    runs are drawn afresh within each task, so that every task keeps its weight (Agarwal et al. 2021, section 4.1).
    `statistic` maps an array of the shape of x to a number or an array. The same seed gives the same interval.
    Raises ValueError if there are no runs or the level is not between 0 and 1.
    """
    x = np.asarray(x, dtype=float)
    runs_axis = int(stratified)
    if x.ndim <= runs_axis or x.size == 0:
        raise ValueError(f"x must be {'[tasks, runs, ...]' if stratified else '[runs, ...]'} and not empty: {x.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    rng, runs = np.random.default_rng(seed), x.shape[runs_axis]

    def resample() -> np.ndarray:
        chosen = rng.integers(runs, size=x.shape[: runs_axis + 1])
        return np.take_along_axis(x, chosen.reshape(chosen.shape + (1,) * (x.ndim - chosen.ndim)), runs_axis)

    values = np.stack([statistic(resample()) for _ in range(resamples)])
    return Interval(*np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0))


def mean_interval(returns: ArrayLike, level: float = 0.95) -> MeanInterval:
    """The mean of independent returns [n] with Student's t interval.

    mean +- t_{n-1} s / sqrt(n). For the few episodes of an evaluation its coverage is nearer to `level` than that of a
    percentile bootstrap (10 normal returns at 95 %: 0.95, not 0.90). One return says nothing of the spread: its
    interval is (-inf, inf). Raises ValueError if there is none.
    """
    returns = np.asarray(returns, dtype=float).ravel()
    if returns.size == 0:
        raise ValueError("expected at least one return")
    mean = float(returns.mean())
    if returns.size == 1:
        return MeanInterval(mean, -np.inf, np.inf)
    # Student's t quantile, from the module that loads in no time: scipy.stats takes a second.
    half_width = float(stdtrit(returns.size - 1, (1 + level) / 2) * returns.std(ddof=1) / np.sqrt(returns.size))
    return MeanInterval(mean, mean - half_width, mean + half_width)
