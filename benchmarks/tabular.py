"""The textbook's experiments with tables, again: numbers beside the book's, and pictures.

    python -m benchmarks.tabular                          # all of them
    python -m benchmarks.tabular --experiment cliff maze
    python -m benchmarks.tabular --runs 10                # a quick look; --output says where to

Each experiment is one compiled program for all its runs (and step sizes): environments, algorithm and measurement.
Rows go to benchmarks/results/tabular/EXPERIMENT.csv, each a setting with the mean over runs and its 95% interval, and
what is expected there; the picture to docs/images/. `python -m benchmarks.report` makes a table of all.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.speed import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "tabular"
PICTURES = ROOT / "docs" / "images"
COLUMNS = ("setting", "runs", "mean", "low", "high", "expected", "expected_error")


class Row(NamedTuple):
    """A measurement: one number of each run."""

    setting: str
    values: np.ndarray  # [runs]
    expected: float | None = None  # the book's, or an independent computation's
    expected_error: float = 0.0  # its standard error, where it was drawn

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean, 95%, by the normal distribution: there are many runs."""
        if len(self.values) == 1:  # computed, not drawn
            return float(self.values[0]), float(self.values[0])
        half = 1.96 * self.values.std(ddof=1) / np.sqrt(len(self.values))
        return float(self.values.mean() - half), float(self.values.mean() + half)


def trace(algorithm: Any, mdp: Any, keys: Any, steps: int, read: Callable[[Any], Any]) -> Any:
    """What `read` says of the state after each of so many iterations, for each key: leaves [keys, steps].

    `training.train` tells of chunks, and checks numbers: here each step counts, and step sizes may be traced.
    """
    import jax
    import jax.numpy as jnp

    from parnassus import training
    from parnassus.collect import ScanCollector
    from parnassus.types import TrainState

    collector = ScanCollector(mdp, 1)

    def one(key: Any) -> Any:
        key, learner_key, actor_key = jax.random.split(key, 3)
        learner = training.plan(training.init_learner(algorithm, learner_key, collector.spec), steps)
        state = TrainState(learner, collector.init(algorithm, actor_key), key, jnp.int32(0))

        def iterate(state: Any, _: None) -> tuple[Any, Any]:
            state, _ = training.iterate(algorithm, collector, state)
            return state, read(state)

        return jax.lax.scan(iterate, state, None, steps)[1]

    return jax.vmap(one)(keys)


def keys(runs: int, seed: int = 0) -> Any:
    """One for each run."""
    import jax

    return jax.random.split(jax.random.key(seed), runs)


def after_episodes(value: np.ndarray, ended: np.ndarray, episodes: int) -> np.ndarray:
    """[runs, episodes]: the value at the end of each of the first episodes, of [runs, steps] both."""
    found = np.empty((len(value), episodes))
    for run, (row, ends) in enumerate(zip(value, ended, strict=True)):
        at = np.flatnonzero(ends)[:episodes]
        if len(at) < episodes:
            raise RuntimeError(f"only {len(at)} of {episodes} episodes ended: take more steps")
        found[run] = row[at]
    return found


def error_of(true: np.ndarray) -> Callable[[Any], tuple[Any, Any]]:
    """For `trace`: the root mean squared error of V over states, and whether an episode ended."""
    import jax.numpy as jnp

    return lambda state: (jnp.sqrt(((state.learner.v - true) ** 2).mean()), state.actor.episodes.ended)


# The experiments: (runs) -> rows and a picture. The numbers of runs are those of `DEFAULT_RUNS`, the book's or more.


def random_walk(runs: int) -> tuple[list[Row], Any]:
    """Figure 7.2: n-step TD on the walk of 19 states, error over the first ten episodes; figure 12.3 for TD(lambda)."""
    import jax
    import jax.numpy as jnp

    import parnassus as pa
    from parnassus.envs import textbook

    mdp, true = textbook.random_walk(19, -1.0), np.arange(-9, 10) / 10
    rates = np.array([0.02, 0.05, *np.arange(0.1, 1.01, 0.1)], np.float32)

    def errors(make: Callable[[Any], Any]) -> np.ndarray:
        """[rates, runs]."""
        sweep = jax.jit(jax.vmap(lambda rate: trace(make(rate), mdp, keys(runs), 3_200, error_of(true))))
        value, ended = map(np.asarray, sweep(jnp.asarray(rates)))
        return np.stack([after_episodes(v, e, 10).mean(1) for v, e in zip(value, ended, strict=True)])

    expected = {(1, 0.8): 0.3452, (2, 0.6): 0.2771, (4, 0.4): 0.2641, (8, 0.2): 0.2793, (16, 0.1): 0.3218}
    expected |= {(4, 0.2): 0.3228, (1, 0.4): 0.4123}
    rows, curves = [], {}
    for n in (1, 2, 4, 8, 16):
        found = errors(lambda rate, n=n: pa.TDPrediction(rate, n, discount=1.0))
        curves[f"n = {n}"] = (rates, found.mean(1))
        for rate, values in zip(rates, found, strict=True):
            if (number := expected.get((n, round(float(rate), 2)))) is not None:
                rows.append(Row(f"{n}-step TD, step size {rate:.1f}", values, number))
    # Of 60 runs; where step sizes were best, their standard deviation was 0.05.
    for decay, rate, number in ((0.4, 0.7, 0.279), (0.8, 0.3, 0.270), (0.9, 0.2, 0.298)):
        made = pa.TDLambda(rate, decay, "accumulating", discount=1.0)
        value, ended = map(np.asarray, jax.jit(lambda k, a=made: trace(a, mdp, k, 3_200, error_of(true)))(keys(runs)))
        name = f"TD(lambda), lambda {decay}, step size {rate}"
        rows.append(Row(name, after_episodes(value, ended, 10).mean(1), number, 0.05 / 60**0.5))
    axes = ("step size", "RMS error, first 10 episodes", (0.2, 0.6))
    return rows, lines("Random walk of 19 states, n-step TD", axes, curves)


def td_and_monte_carlo(runs: int) -> tuple[list[Row], Any]:
    """Example 6.2: the walk of five states, error after each of a hundred episodes."""
    import jax

    import parnassus as pa
    from parnassus.envs import textbook

    mdp, true, rows, curves = textbook.random_walk(), np.arange(1, 6) / 6, [], {}
    expected = {("TD", 0.05): 0.036, ("TD", 0.1): 0.056, ("TD", 0.15): 0.070}
    expected |= {("MC", 0.01): 0.098, ("MC", 0.02): 0.082, ("MC", 0.03): 0.094, ("MC", 0.04): 0.107}
    for (kind, rate), number in expected.items():
        common = {"learning_rate": rate, "discount": 1.0, "initial_value": 0.5, "num_steps": 1}
        made = pa.TDPrediction(**common) if kind == "TD" else pa.MonteCarloPrediction("every", longest=99, **common)
        value, ended = map(np.asarray, jax.jit(lambda k, a=made: trace(a, mdp, k, 1_600, error_of(true)))(keys(runs)))
        found = after_episodes(value, ended, 100)
        rows.append(Row(f"{kind}, step size {rate}, after 100 episodes", found[:, -1], number))
        curves[f"{kind}, {rate}"] = (np.arange(1, 101), found.mean(0))
    return rows, lines("Random walk of 5 states", ("episodes", "RMS error", (0.0, 0.25)), curves)


def cliff(runs: int) -> tuple[list[Row], Any]:
    """Example 6.6: returns while learning, 500 episodes, epsilon 0.1; the mean over the last hundred."""
    import jax

    import parnassus as pa

    mdp, rows, curves = pa.FiniteMDP.from_gymnasium("CliffWalking-v1"), [], {}
    makers: dict[str, Callable[[float], Any]] = {
        "SARSA": lambda rate: pa.SARSA(rate, discount=1.0),
        "Q-learning": lambda rate: pa.QLearning(rate, discount=1.0, epsilon=0.1),
        "Expected SARSA": lambda rate: pa.ExpectedSARSA(rate, discount=1.0),
    }
    # The mean of 200 runs, and their standard deviation.
    expected = {("SARSA", 0.5): (-26.6, 5.3), ("SARSA", 0.1): (-22.6, 2.4)}
    expected |= {("Q-learning", 0.5): (-49.1, 7.3), ("Q-learning", 0.1): (-48.8, 6.9)}
    expected |= {("Expected SARSA", 0.5): (-21.0, 1.9), ("Expected SARSA", 0.1): (-22.1, 2.1)}
    read = lambda state: (state.actor.episodes.ended_return, state.actor.episodes.ended)  # noqa: E731
    for (name, rate), (number, deviation) in expected.items():
        made = makers[name](rate)
        value, ended = map(np.asarray, jax.jit(lambda k, a=made: trace(a, mdp, k, 24_000, read))(keys(runs)))
        returns = after_episodes(value, ended, 500)
        rows.append(Row(f"{name}, step size {rate}", returns[:, -100:].mean(1), number, deviation / 200**0.5))
        if rate == 0.5:
            smooth = returns.mean(0).reshape(-1, 10).mean(1)
            curves[name] = (np.arange(5, 500, 10), smooth)
    return rows, lines("Cliff walking", ("episodes", "return while learning", (-100.0, -10.0)), curves)


def maze(runs: int) -> tuple[list[Row], Any]:
    """Example 8.1: Dyna-Q in the maze, steps of each episode."""
    import jax

    import parnassus as pa
    from parnassus.envs import textbook

    mdp, rows, curves = textbook.dyna_maze(), [], {}
    read = lambda state: (state.actor.episodes.ended_length, state.actor.episodes.ended)  # noqa: E731
    # Of 60 runs; the standard deviations are ours. (Episode 45: the mean of 40 to 50.)
    expected = {0: {1: 929.0, 10: 139.0, 45: 18.1}, 5: {5: 23.3, 10: 16.2}, 50: {3: 17.7}}
    for num_plans, numbers in expected.items():
        made = pa.DynaQ(0.1, num_plans, discount=0.95, epsilon=0.1)
        steps = 20_000 if num_plans == 0 else 10_000  # the first episode is a random walk
        value, ended = map(np.asarray, jax.jit(lambda k, a=made, n=steps: trace(a, mdp, k, n, read))(keys(runs)))
        length = after_episodes(value, ended, 50)
        for episode, number in numbers.items():
            values = length[:, 39:].mean(1) if episode == 45 else length[:, episode - 1]
            when = "episodes 40 to 50" if episode == 45 else f"episode {episode}"
            rows.append(Row(f"n = {num_plans}, {when}", values, number, values.std() / 60**0.5))
        curves[f"n = {num_plans}"] = (np.arange(2, 51), length[:, 1:].mean(0))
    return rows, lines("Dyna maze", ("episodes", "steps in an episode", (0.0, 800.0)), curves)


def blackjack(runs: int) -> tuple[list[Row], Any]:
    """Example 5.4: a state's value where one sticks on 20, from a random policy's games that begin in it."""
    import dataclasses

    import jax
    import jax.numpy as jnp

    import parnassus as pa
    from parnassus.envs import textbook

    state = textbook.blackjack_state(13, 2, True)
    mdp = textbook.blackjack()
    mdp = dataclasses.replace(mdp, start=jnp.zeros(370).at[state].set(1.0))
    total = np.append(np.arange(360) // 20 + 4, np.full(10, 21))
    policy = jax.nn.one_hot(jnp.asarray(total < 20, jnp.int32), 2)
    true, rows, curves = -0.27720, [], {}
    read = lambda s: (s.learner.v[state], s.actor.episodes.ended)  # noqa: E731
    games = np.unique(np.round(np.logspace(0, 4, 41)).astype(int))
    for weighting in ("ordinary", "weighted"):
        made = pa.MonteCarloPrediction(
            "first",
            weighting,  # type: ignore[arg-type]
            num_steps=1,
            longest=20,
            discount=1.0,
            policy=policy,
            behavior_policy=jnp.full((370, 2), 0.5),
        )
        value, ended = map(np.asarray, jax.jit(lambda k, a=made: trace(a, mdp, k, 19_000, read))(keys(runs)))
        found = after_episodes(value, ended, 10_000)
        rows.append(Row(f"{weighting} importance sampling, 10,000 games", found[:, -1], true))
        curves[weighting] = (games, ((found[:, games - 1] - true) ** 2).mean(0))
    axes = ("games (logarithmic)", "mean squared error", (0.0, 5.0))
    return rows, lines("Blackjack, a state's value by importance sampling", axes, curves, logarithmic=True)


def frozen_lake(runs: int) -> tuple[list[Row], Any]:
    """The best policy's share of goals, without and with the time limit of a hundred steps, and learners on the way."""
    import jax
    import jax.numpy as jnp

    import parnassus as pa
    from parnassus import dynamic_programming as dp

    mdp = pa.FiniteMDP.from_gymnasium("FrozenLake-v1")
    found = dp.policy_iteration(mdp, 1.0)
    horizon = jnp.zeros(16)  # values of what is left, from no step to a hundred
    for _ in range(100):
        horizon = dp.action_values(mdp, horizon, 1.0).max(-1)
    policy = pa.TDPrediction(0.01, policy=found.policy, discount=1.0)
    read = lambda state: (state.actor.episodes.ended_return, state.actor.episodes.ended)  # noqa: E731
    value, ended = map(np.asarray, jax.jit(lambda k: trace(policy, mdp, k, 20_000, read))(keys(runs)))
    rows = [
        Row("the best policy, exactly", np.array([float(found.v[0])]), 0.8235),
        Row("the best that counts its steps, within 100, exactly", np.array([float(horizon[0])]), 0.7442),
        Row("the best policy, within 100 steps, played", value.sum(1) / ended.sum(1), 0.7402),
    ]
    curves, steps = {}, 100_000
    learners = {"Q-learning": pa.QLearning(0.1), "SARSA": pa.SARSA(0.1, epsilon=pa.Linear(1.0, 0.05, 0.5))}
    for name, made in learners.items():
        run = jax.jit(lambda k, a=made: trace(a, mdp, k, steps, read))
        value, ended = (np.asarray(x).reshape(-1, 50, steps // 50).sum((0, 2)) for x in run(keys(min(runs, 100))))
        curves[name] = (np.arange(1_000, steps, steps // 50), value / np.maximum(ended, 1))
    axes = ("environment steps", "share of episodes that reach the goal", (0.0, 0.8))
    return rows, lines("FrozenLake, while learning", axes, curves)


EXPERIMENTS: dict[str, Callable[[int], tuple[list[Row], Any]]] = {
    "random-walk": random_walk,
    "td-and-monte-carlo": td_and_monte_carlo,
    "cliff": cliff,
    "maze": maze,
    "blackjack": blackjack,
    "frozen-lake": frozen_lake,
}
DEFAULT_RUNS = {
    "random-walk": 300,
    "td-and-monte-carlo": 300,
    "cliff": 1_000,
    "maze": 120,
    "blackjack": 200,
    "frozen-lake": 200,
}


def lines(
    title: str, axes: tuple[str, str, tuple[float, float]], curves: dict[str, tuple], logarithmic: bool = False
) -> Any:
    """A figure of curves (x, y)."""
    from parnassus.plotting import COLORS, DASHES, new_figure

    figure = new_figure((6.0, 3.8))
    panel = figure.add_subplot()
    for i, (name, (x, y)) in enumerate(curves.items()):
        panel.plot(x, y, DASHES[i % len(DASHES)], color=COLORS[i % len(COLORS)], lw=1.6, label=name)
    panel.set_xlabel(axes[0])
    panel.set_ylabel(axes[1])
    panel.set_ylim(*axes[2])
    if logarithmic:
        panel.set_xscale("log")
    panel.set_title(title, fontsize=10, loc="left")
    panel.grid(axis="y", color="#DDDDDD", lw=0.6)
    panel.legend(frameon=False, fontsize=8)
    return figure


def write(path: Path, rows: Sequence[Row]) -> None:
    """The table of an experiment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            low, high = row.interval
            expected = "" if row.expected is None else row.expected
            numbers = [f"{x:.5g}" for x in (row.values.mean(), low, high)]
            writer.writerow([row.setting, len(row.values), *numbers, expected, f"{row.expected_error:.2g}"])


def main(arguments: list[str] | None = None) -> int:
    """Run the experiments asked for, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", nargs="+", choices=EXPERIMENTS, metavar="NAME", help=", ".join(EXPERIMENTS))
    parser.add_argument("--runs", type=int, help="by default as many as the book has, or more")
    parser.add_argument("--output", type=Path, help="a folder for tables and pictures in place of their places here")
    options = parser.parse_args(arguments)
    for name in options.experiment or EXPERIMENTS:
        rows, figure = EXPERIMENTS[name](options.runs or DEFAULT_RUNS[name])
        write((options.output or RESULTS) / f"{name}.csv", rows)
        picture = (options.output or PICTURES) / f"{name}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(picture)
        for row in rows:
            low, high = row.interval
            expected = "" if row.expected is None else f", expected {row.expected:g}"
            print(f"{name}: {row.setting}: {row.values.mean():.4g} ({low:.4g} to {high:.4g}){expected}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
