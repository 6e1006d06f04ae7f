"""A job: a run, or several seeds of one side by side, while it trains. `parnassus.run` is what users call.

open_job  what config.json says, and the newest good checkpoint
drive     for each chunk of training: a row of metrics, now and then a checkpoint;
          until the planned steps, the target return or a signal; then a last checkpoint
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from parnassus import checkpoint, configuration, training
from parnassus.interrupts import Interrupts, stop
from parnassus.presets import algorithm_name
from parnassus.source import Environment, Source, close, driver_of, env_name, source_of
from parnassus.tracking import CSVSink, Progress, Sink, TensorBoardSink, read_columns
from parnassus.types import Algorithm, BadInput, TrainingFailed, TrainState

_SAVING_SHARE = 0.05  # of a run's time
_MAX_TENSORBOARDS = 32  # each is a thread and an open file; more seeds than that have their metrics.csv alone


@dataclass
class Job:
    """Everything of a run but its state, which `drive` takes and gives."""

    directory: Path
    config: dict[str, Any]
    algorithm: Algorithm
    env: Environment
    collector: Source

    def children(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The directories of the seeds and their config.json; nothing for a single run."""
        for seed in self.config.get("seeds", []):
            own = {name: value for name, value in self.config.items() if name != "seeds"}
            yield self.directory / f"seed-{seed}", {**own, "seed": seed}

    def directories(self) -> list[Path]:
        """Where metrics and checkpoints are: of each seed, or the run itself."""
        return [child for child, _ in self.children()] or [self.directory]

    def states(self, state: TrainState) -> list[TrainState]:
        """The state of each seed."""
        if "seeds" not in self.config:
            return [state]
        # To the host in one piece: slicing each leaf on the devices would be a program for each.
        host = jax.tree.map(lambda x: np.asarray(_key_data(x)), state)
        is_key = jax.tree.map(_is_key, state)
        return [
            jax.tree.map(lambda x, key, i=i: jax.random.wrap_key_data(jnp.array(x[i])) if key else x[i], host, is_key)
            for i in range(len(self.config["seeds"]))
        ]

    def save(self, state: TrainState, steps: int) -> None:
        """A checkpoint of each seed."""
        for directory, one in zip(self.directories(), self.states(state), strict=True):
            checkpoint.save(directory / "checkpoints", one, steps)

    def score(self) -> float:
        """The mean episode return of the last chunk, over the seeds; -inf before there is one."""
        last = [read_columns(directory / "metrics.csv").get("episode/return") for directory in self.directories()]
        return _mean([row[-1] for row in last if row is not None])


def open_job(directory: Path, algorithm: Algorithm | None, env: Environment | None) -> tuple[Job, TrainState, int]:
    """The run in `directory` at its last good checkpoint, and its steps.

    Raises BadInput if the directory is no run, or of another algorithm or shapes, and where config.json cannot say what
    it was made from.
    """
    config = configuration.read(directory)
    if algorithm is None:
        algorithm = configuration.decode_algorithm(config)
    elif algorithm_name(algorithm) != config["algorithm"]:
        raise BadInput(f"{directory} is a run of {config['algorithm']}, not of {algorithm_name(algorithm)}")
    if env is None:
        if configuration.is_opaque(config["env"]):
            raise BadInput(f"config.json cannot rebuild the environment {config['env']['object']}: pass env= in Python")
        env = config["env"]
    configuration.configure(several_seeds="seeds" in config)
    if any(map(configuration.is_opaque, config["env_options"].values())):
        raise BadInput(f"config.json cannot rebuild env_options={config['env_options']}: pass env= in Python")
    algorithm, collector = source_of(algorithm, env, config)
    job = Job(directory, config, algorithm, env, collector)
    try:
        template = jax.eval_shape(
            lambda key: driver_of(algorithm).init(algorithm, collector, key, config["steps"]), jax.random.key(0)
        )
        found, steps = _load_alike([path / "checkpoints" for path in job.directories()], template)
    except BaseException:
        close(getattr(collector, "env", None))
        raise
    if "seeds" not in config:
        return job, found[0], steps
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
    sharding = NamedSharding(training.seed_mesh(len(found)), PartitionSpec("seed"))
    return job, jax.device_put(state, sharding), steps


def _load_alike(directories: list[Path], template: TrainState) -> tuple[list[TrainState], int]:
    """The newest good checkpoints of one step in all directories; says on stderr which newer ones were not used."""
    newest: int | None = None
    while True:
        try:
            loaded = [checkpoint.load(directory, template, newest) for directory in directories]
        except BadInput as error:
            if newest is None:
                raise
            raise BadInput(f"the seeds are at different steps, one of them at {newest:,}: resume each alone") from error
        steps = [one[1] for one in loaded]
        for directory, (_, _, notes) in zip(directories, loaded, strict=True):
            for note in notes:
                print(f"{directory.parent}: {note}", file=sys.stderr, flush=True)
        if min(steps) == max(steps):
            return [one[0] for one in loaded], steps[0]
        newest = min(steps)


def drive(job: Job, state: TrainState, start: int, quiet: bool) -> tuple[TrainState, int]:
    """Train to the planned steps: log each chunk, save now and then, stop on a signal or at the target.

    The last state, and its environment steps. Raises TrainingFailed as `training.train` does, and says what is kept; a
    signal has its usual effect (KeyboardInterrupt, SystemExit) after the last checkpoint.
    """
    planned, target = job.config["steps"], job.config["target_return"]
    title = f"{job.config['algorithm']} on {env_name(job.env)}"
    began, saving, saved = time.perf_counter(), 0.0, start
    steps, driver = start, driver_of(job.algorithm)

    def save() -> None:
        nonlocal saving, saved
        before = time.perf_counter()
        job.save(state, steps)
        saving, saved = saving + time.perf_counter() - before, steps

    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        sinks = [_Sinks(directory, start, len(job.directories())) for directory in job.directories()]
        bar = None if quiet else Progress(title, planned, start)
        for sink in sinks:
            stack.callback(sink.close)
        if bar is not None:
            stack.callback(bar.close)
        if len(sinks) > 1:
            stack.callback(summarize_seeds, job.directory)
        try:
            for chunk in driver.train(job.algorithm, job.collector, state, planned, job.config["chunk_iterations"]):
                state, steps = chunk.state, chunk.steps
                for i, sink in enumerate(sinks):
                    sink.log(steps, {name: float(_one(x, i)) for name, x in chunk.metrics.items()})
                score = _mean(np.ravel(chunk.metrics["episode/return"]))
                if bar is not None:
                    bar.log(
                        steps, {**{n: float(np.mean(x)) for n, x in chunk.metrics.items()}, "episode/return": score}
                    )
                reached = target is not None and score >= target
                if interrupts.signal is not None or reached or steps >= planned:
                    break
                if saved == start or saving <= _SAVING_SHARE * (time.perf_counter() - began):
                    save()
        except TrainingFailed as error:
            raise TrainingFailed(f"{error}; {_what_is_kept(job, saved)}") from (error.__cause__ or error)
        if saved < steps:
            save()
    if interrupts.signal is not None:
        print(f"stopped at step {steps:,}; go on with: parnassus resume {job.directory}", file=sys.stderr, flush=True)
        stop(interrupts.signal)
    return state, steps


def _what_is_kept(job: Job, saved: int) -> str:
    if not any((job.directories()[0] / "checkpoints").glob("*.json")):
        return f"that is before the first checkpoint in {job.directory}"
    return f"the last good checkpoint, of step {saved:,}, is kept: parnassus resume {job.directory}"


class _Sinks:
    """metrics.csv and TensorBoard of one run directory."""

    def __init__(self, directory: Path, start: int, num_runs: int) -> None:
        self._sinks: list[Sink] = [CSVSink(directory / "metrics.csv", start)]
        if num_runs <= _MAX_TENSORBOARDS:
            self._sinks.append(TensorBoardSink(directory, start))

    def log(self, steps: int, metrics: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.log(steps, metrics)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


def summarize_seeds(directory: Path) -> None:
    """summary.csv: for each chunk, the interquartile mean over seeds and its 95% bootstrap interval."""
    from parnassus.statistics import bootstrap_interval, interquartile_mean

    columns = [read_columns(path) for path in sorted(directory.glob("seed-*/metrics.csv"))]
    length = min((len(column.get("steps", [])) for column in columns), default=0)
    if not length:
        return
    over_seeds = lambda x: interquartile_mean(x, axis=0)  # noqa: E731
    (directory / "summary.csv").unlink(missing_ok=True)
    rows: dict[str, np.ndarray] = {}
    for name in ("episode/return", "episode/length"):
        curves = np.stack([column[name][:length] for column in columns])
        low, high = bootstrap_interval(curves, over_seeds)
        rows |= {name: np.asarray(over_seeds(curves)), f"{name}/low": np.asarray(low), f"{name}/high": np.asarray(high)}
    sink = CSVSink(directory / "summary.csv")
    for i in range(length):
        sink.log(int(columns[0]["steps"][i]), {name: float(row[i]) for name, row in rows.items()})


def _one(x: np.ndarray, i: int) -> Any:
    return x if np.ndim(x) == 0 else x[i]


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else -np.inf


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _key_data(x: Any) -> Any:
    return jax.random.key_data(x) if _is_key(x) else x
