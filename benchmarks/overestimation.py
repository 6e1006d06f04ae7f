"""Figures 1 and 2 of the TD3 paper: what critics promise, beside what comes.

    python -m benchmarks.overestimation --env jax:Pendulum-v1
    python -m benchmarks.overestimation --env Hopper-v5 --steps 50_000 --points 5 --seeds 0

Four actor-critics with the same networks, step sizes and noise differ in their targets alone: DDPG, Double DQN's way,
Double Q-learning's way, and the smaller of two critics (TD3 without its delay and its smoothing). As training goes on,
`parnassus.analysis.value_bias` compares the mean value of 10,000 states of the replay with the mean discounted return
of 1,000 episodes from states of the replay. Rows go to benchmarks/results/overestimation/ENV.csv as they come; methods
and seeds that are there already are left out. The picture is drawn from all of them, beside the table.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "overestimation"
COLUMNS = ("method", "seed", "steps", "estimated", "returned", "returned_low", "returned_high")
METHODS = ("DDPG", "Double DQN style", "Double Q style", "clipped double Q")


def algorithm(method: str, env: str, learning_starts: int) -> Any:
    """The actor-critic of that name; everything but the target is the same."""
    import parnassus as pa

    common: dict[str, Any] = {
        "learning_rate": 1e-3,
        "critic_learning_rate": 1e-3,
        "learning_starts": learning_starts,
        "num_steps": 1,
    }
    if env != "jax:Pendulum-v1":  # the paper's layers and minibatches
        common |= {"hidden_sizes": (400, 300), "minibatch_size": 100}
    return {
        "DDPG": lambda: pa.DDPG(**common),
        "Double DQN style": lambda: pa.DDPG(**common, double=True),
        "Double Q style": lambda: pa.DoubleQ(**common),
        "clipped double Q": lambda: pa.TD3(**common, policy_delay=1, target_noise=0.0),
    }[method]()


def place(env: str) -> tuple[Any, Any, Callable]:
    """What collects from `env`, what episodes are played in, and how one is started from an observation."""
    import gymnasium

    from parnassus import analysis, envs
    from parnassus.collect import collector_for

    made = envs.make(env, 1)
    if env == "jax:Pendulum-v1":
        return collector_for(made, 1), made, analysis.pendulum_state
    return collector_for(made, 1), lambda: gymnasium.make(env), analysis.set_mujoco_state


def measure(method: str, env: str, seed: int, steps: int, every: int, episodes: int) -> Iterator[tuple]:
    """Train one seed; rows (steps, estimated, returned, its interval) every so many steps."""
    import jax

    from parnassus import training
    from parnassus.analysis import value_bias

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    collector, where, restore = place(env)
    learner_of = training.arrays(algorithm(method, env, min(10_000, steps // 10)))
    state = training.init(learner_of, collector, jax.random.key(seed), steps)
    for chunk in training.train(learner_of, collector, state, steps, chunk_iterations=every):
        key = jax.random.key(10_000 + seed)
        bias = value_bias(learner_of, chunk.state.learner, where, restore, key, episodes=episodes)
        yield chunk.steps, bias.estimated.mean, *bias.returned


def draw(env: str, rows: list[dict[str, str]], path: Path) -> None:
    """One panel for each method: the means over seeds of what was promised and of what came."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 3.0), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(METHODS), sharey=True)
    for panel, method in zip(panels, METHODS, strict=True):
        mine = [row for row in rows if row["method"] == method]
        steps = sorted({int(row["steps"]) for row in mine})
        for column, color, style in (("estimated", "#D55E00", "-"), ("returned", "#0072B2", "--")):
            values = [[float(row[column]) for row in mine if int(row["steps"]) == step] for step in steps]
            label = {"estimated": "value promised", "returned": "return that came"}[column]
            panel.plot(steps, [np.mean(v) for v in values], style, color=color, label=label)
            low, high = ([f(v) for v in values] for f in (np.min, np.max))
            panel.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        num_seeds = len({row["seed"] for row in mine})
        panel.set_title(f"{method}, {num_seeds} {'seed' if num_seeds == 1 else 'seeds'}", fontsize=9)
        panel.set_xlabel("environment steps", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.locator_params(axis="x", nbins=4)
    # What an untrained critic says is far from any return: the axis is that of the last two thirds.
    last = max(int(row["steps"]) for row in rows)
    late = [float(row[column]) for row in rows for column in ("estimated", "returned") if 3 * int(row["steps"]) > last]
    margin = 0.05 * (max(late) - min(late))
    panels[0].set_ylim(min(late) - margin, max(late) + margin)
    panels[0].set_ylabel(f"discounted return, {env}", fontsize=8)
    panels[0].legend(fontsize=7, frameon=False)
    figure.savefig(path)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none if there is no table yet."""
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="jax:Pendulum-v1", help="jax:Pendulum-v1, Hopper-v5 or Walker2d-v5")
    parser.add_argument("--steps", type=int, default=20_000, help="environment steps (default: 20,000)")
    parser.add_argument("--points", type=int, default=20, help="measurements on the way (default: 20)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--episodes", type=int, default=1_000, help="episodes per measurement (default: 1,000)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="another folder")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    table = options.output / f"{options.env.replace(':', '-')}.csv"
    for seed in options.seeds:
        for method in METHODS:
            if any(row["method"] == method and int(row["seed"]) == seed for row in read(table)):
                continue
            every = options.steps // options.points
            rows = list(measure(method, options.env, seed, options.steps, every, options.episodes))
            is_new = not table.exists()
            with table.open("a", newline="") as file:
                writer = csv.writer(file)
                if is_new:
                    writer.writerow(COLUMNS)
                writer.writerows([method, seed, row[0], *(f"{x:.3f}" for x in row[1:])] for row in rows)
            print(f"{method} seed {seed}: promised {rows[-1][1]:.1f}, came {rows[-1][2]:.1f}", flush=True)
    draw(options.env, read(table), table.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
