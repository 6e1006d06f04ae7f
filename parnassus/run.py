"""Runs: `train` makes one in a directory of its own, `resume` goes on with it, `load` reads it back.

    runs/ppo-CartPole-v1-0/
        config.json        everything needed to repeat the run, versions included
        metrics.csv        a row per chunk; the same as TensorBoard events
        checkpoints/       the last two; see `parnassus.checkpoint`
        evaluations.csv    a row per call of `evaluate`

Several seeds are a directory of such directories, seed-0, seed-1, ..., with their summary.csv.
"""

import csv
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from parnassus import checkpoint, configuration, envs, training
from parnassus.collect import HostCollector, ScanCollector, collector_for, is_on_host
from parnassus.distributed import asynchronous
from parnassus.evaluation import Evaluation, evaluate
from parnassus.interrupts import Interrupts, stop
from parnassus.policy import Policy
from parnassus.presets import algorithm_name, default_num_envs, preset
from parnassus.schedules import plan
from parnassus.simulator import Simulator, informed, visible_space
from parnassus.tracking import CSVSink, Progress, Sink, TensorBoardSink, read_columns
from parnassus.types import Algorithm, AsynchronousAlgorithm, BadInput, Behavior, Env, Spec, TrainingFailed, TrainState

_SAVING_SHARE = 0.05  # of a run's time
_MAX_TENSORBOARDS = 32  # each is a thread and an open file; more seeds than that have their metrics.csv alone

Environment = str | Env | Callable[..., Any]
Source = ScanCollector | HostCollector | asynchronous.Workers  # of experience


@dataclass(frozen=True)
class Run:
    """A trained (or partly trained) agent and its directory."""

    directory: Path
    config: dict[str, Any] = field(repr=False)
    algorithm: Algorithm
    env: Environment
    steps: int  # environment steps taken
    spec: Spec = field(repr=False)
    state: TrainState = field(repr=False)

    def evaluate(self, episodes: int = 100, seed: int = 0) -> Evaluation:
        """Full episodes of the policy without exploration; also written to evaluations.csv.

        Raises BadInput for a number of episodes below 1, TrainingFailed if the environment raises.
        """
        _check_count("episodes", episodes)
        _check_count("seed", seed, least=0)
        made = _make(self.env, min(self.config["num_envs"], episodes), self.config)
        try:
            algorithm, place = _with_simulator(self.algorithm, made, acts_only=True)
            result = evaluate(training.arrays(algorithm), self._behavior(), place, episodes, seed)
        finally:
            _close(made)
        row = {
            "steps": self.steps,
            "episodes": episodes,
            "seed": seed,
            "return": result.mean,
            "low": result.interval[0],
            "high": result.interval[1],
            "length": float(result.lengths.mean()),
        }
        path = self.directory / "evaluations.csv"
        is_new = not path.exists()
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(row)
        return result

    def policy(self) -> Policy:
        """The deterministic policy, as a function of an observation."""
        spec = self.spec
        if getattr(self.algorithm, "acts_without_simulator", False):
            spec = replace(spec, observation_space=visible_space(spec.observation_space))
        return Policy(self.algorithm, self._behavior(), spec)

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """The columns of metrics.csv; NaN where nothing is known."""
        return read_columns(self.directory / "metrics.csv")

    def _behavior(self) -> Behavior:
        # A copy: the policy must outlive the state, whose buffers a training loop may be given to consume.
        return jax.tree.map(jnp.array, self.algorithm.behavior(self.state.learner))


class Runs(Sequence[Run]):
    """Several seeds of one run, trained in one program; `runs[i]` is the i-th of them."""

    def __init__(self, directory: Path, config: dict[str, Any], runs: list[Run]) -> None:
        self.directory = directory
        self.config = config
        self._runs = runs

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> list[Run]: ...
    def __getitem__(self, index: int | slice) -> Run | list[Run]:
        return self._runs[index]

    def __repr__(self) -> str:
        return f"Runs({str(self.directory)!r}, {len(self)} seeds)"

    @property
    def steps(self) -> int:
        """Environment steps taken, by each seed."""
        return self._runs[0].steps

    def evaluate(self, episodes: int = 100, seed: int = 0) -> list[Evaluation]:
        """`Run.evaluate` of each."""
        return [run.evaluate(episodes, seed) for run in self]

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """The columns of summary.csv."""
        return read_columns(self.directory / "summary.csv")


@overload
def train(
    algorithm: Algorithm | str,
    env: Environment,
    steps: int,
    seed: int = 0,
    seeds: None = None,
    *,
    num_envs: int | None = None,
    run: str | Path | None = None,
    quiet: bool = False,
    asynchronous: bool = False,
    exact_resume: bool = True,
    chunk_steps: int | None = None,
    target_return: float | None = None,
    env_options: Mapping[str, Any] | None = None,
) -> Run: ...
@overload
def train(
    algorithm: Algorithm | str,
    env: Environment,
    steps: int,
    seed: int = 0,
    *,
    seeds: Iterable[int],
    num_envs: int | None = None,
    run: str | Path | None = None,
    quiet: bool = False,
    asynchronous: bool = False,
    exact_resume: bool = True,
    chunk_steps: int | None = None,
    target_return: float | None = None,
    env_options: Mapping[str, Any] | None = None,
) -> Runs: ...
def train(
    algorithm: Algorithm | str,
    env: Environment,
    steps: int,
    seed: int = 0,
    seeds: Iterable[int] | None = None,
    *,
    num_envs: int | None = None,
    run: str | Path | None = None,
    quiet: bool = False,
    asynchronous: bool = False,
    exact_resume: bool = True,
    chunk_steps: int | None = None,
    target_return: float | None = None,
    env_options: Mapping[str, Any] | None = None,
) -> Run | Runs:
    """Train for `steps` environment steps (rounded up to a whole iteration) in a new run directory.

    algorithm      an Algorithm, or a name: then the preset for this environment is used
    env            a name ("CartPole-v1", "jax:...", "gymnax:...", "envpool:..."), a JAX environment, or a function that
                   makes a gymnasium.Env; `env_options` go to whatever makes it
    seed           the same seed, the same run; `seeds` trains several in one program (JAX environments only)
    num_envs       environments side by side; by default the preset's or the algorithm's
    run            the directory; by default runs/<algorithm>-<env>-<seed>
    asynchronous   Gymnasium environments in a process each
    exact_resume   host environments restart at every chunk, so that resuming is exact; False leaves episodes unbroken
    chunk_steps    environment steps between two rows of metrics (and possible checkpoints)
    target_return  stop as soon as a chunk's mean episode return reaches it

    The first SIGINT or SIGTERM finishes the chunk, saves, says how to resume, and then has its usual effect
    (KeyboardInterrupt, SystemExit). Raises BadInput before anything is written, TrainingFailed if a number is not
    finite or the environment raises; the last good checkpoint is kept.
    """
    _check_steps(steps)
    seed_list = None if seeds is None else list(seeds)
    _check_seeds([seed] if seed_list is None else seed_list)
    if chunk_steps is not None:
        _check_count("chunk_steps", chunk_steps)
    if target_return is not None and np.isnan(target_return):
        raise BadInput("target_return must be a number, not nan")
    if isinstance(algorithm, str):
        name = algorithm
        algorithm, options = preset(algorithm, env)
    else:
        if isinstance(algorithm, type) or not all(hasattr(algorithm, m) for m in ("init", "act", "learn", "behavior")):
            raise BadInput(f"an algorithm is a name or an object such as PPO(), not {algorithm!r}")
        name, options = algorithm_name(algorithm), {"num_envs": default_num_envs(algorithm)}
    num_envs = options["num_envs"] if num_envs is None else num_envs
    _check_count("num_envs", num_envs)
    numbers = f"{seed}" if seed_list is None else f"{seed_list[0]}..{seed_list[-1]}"
    directory = Path(run) if run is not None else Path("runs") / f"{name}-{_file_name(env)}-{numbers}"
    _refuse_existing(directory)

    configuration.configure(several_seeds=seed_list is not None)
    config = {
        "format": configuration.FORMAT,
        "algorithm": name,
        "hyperparameters": configuration.encode_fields(algorithm),
        "env": configuration.encode(env),
        "env_options": {key: configuration.encode(value) for key, value in (env_options or {}).items()},
        "num_envs": num_envs,
        "asynchronous": asynchronous,
        "steps": steps,
        "exact_resume": exact_resume,
        "target_return": target_return,
    }
    algorithm, collector = _collector(algorithm, env, config, env_options)
    with ExitStack() as stack:
        stack.callback(_close, getattr(collector, "env", None))
        key = jax.random.key(seed) if seed_list is None else jax.vmap(jax.random.key)(jnp.array(seed_list, jnp.uint32))
        driver = _driver(algorithm)
        state = driver.init(algorithm, collector, key, steps)
        iteration_steps = algorithm.num_steps * collector.spec.num_envs
        config["chunk_iterations"] = (
            training.default_chunk(algorithm, collector.spec, steps)
            if chunk_steps is None
            else max(1, round(chunk_steps / iteration_steps))
        )
        config |= ({"seed": seed} if seed_list is None else {"seeds": seed_list}) | configuration.describe()
        directory.mkdir(parents=True, exist_ok=True)
        job = _Job(directory, config, algorithm, env, collector)
        for child, child_config in job.children():
            child.mkdir(exist_ok=True)
            configuration.write(child, child_config)
        configuration.write(directory, config)
        return _drive(job, state, 0, quiet)


def load(directory: str | Path, algorithm: Algorithm | None = None, env: Environment | None = None) -> Run:
    """The run in a directory, at its last good checkpoint. One of several seeds is in a directory of its own.

    `algorithm` and `env` are needed where config.json cannot say them: an algorithm or network of your own, an
    environment that is not a name. Raises BadInput if the directory is no run, or of another algorithm or shapes.
    """
    directory = Path(directory)
    if seeds := configuration.read(directory).get("seeds"):
        raise BadInput(
            f"{directory} holds {len(seeds)} seeds: load one of them, such as {directory / f'seed-{seeds[0]}'}"
        )
    job, state, steps = _open(directory, algorithm, env)
    _close(getattr(job.collector, "env", None))
    return job.run(state, steps)


def load_seeds(directory: str | Path, algorithm: Algorithm | None = None, env: Environment | None = None) -> Runs:
    """The runs in a directory of several seeds, where they were last together. Raises BadInput as `load` does."""
    directory = Path(directory)
    if "seeds" not in configuration.read(directory):
        raise BadInput(f"{directory} holds a single run, not several seeds")
    job, state, steps = _open(directory, algorithm, env)
    return job.runs(state, steps)


def resume(
    directory: str | Path,
    steps: int | None = None,
    *,
    algorithm: Algorithm | None = None,
    env: Environment | None = None,
    quiet: bool = False,
    target_return: float | None = None,
) -> Run | Runs:
    """Go on with a run from its last good checkpoint, to the bits that it would have had without the interruption.

    Except with several asynchronous workers (A3C): their parameters, statistics and counters go on, to other bits.

    `steps` plans more environment steps in all (schedules follow the new plan, and an old target return is dropped).
    Raises BadInput as `load` does, and if nothing is left to do.
    """
    directory = Path(directory)
    job, state, taken = _open(directory, algorithm, env)
    config = job.config
    with ExitStack() as stack:
        stack.callback(_close, getattr(job.collector, "env", None))
        if steps is not None:
            _check_steps(steps)
        planned = config["steps"] if steps is None else steps
        if taken >= planned:
            raise BadInput(
                f"nothing is left to do in {directory}: it has taken {taken:,} steps and {planned:,} are planned; "
                "give a larger number of steps"
            )
        target = target_return if target_return is not None or steps is not None else config["target_return"]
        if target is not None and target_return is None and job.score() >= target:
            raise BadInput(
                f"nothing is left to do in {directory}: it reached its target return {target:g} "
                f"at step {taken:,}; give steps or another target return"
            )
        if planned != config["steps"]:
            replan = lambda learner: plan(learner, planned)  # noqa: E731
            state = state._replace(learner=(jax.vmap(replan) if "seeds" in config else replan)(state.learner))
        history = [*config.get("resumed", []), {"at": taken, "steps": planned, **configuration.describe()}]
        config |= {"steps": planned, "target_return": target, "resumed": history}
        config["hyperparameters"] = configuration.encode_fields(job.algorithm)
        for child, child_config in job.children():
            configuration.write(child, child_config)
        configuration.write(directory, config)
        return _drive(job, state, taken, quiet)


@dataclass
class _Job:
    """A run, or several seeds side by side, about to train."""

    directory: Path
    config: dict[str, Any]
    algorithm: Algorithm
    env: Environment
    collector: Source

    def children(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The directories of the seeds and their config.json; nothing for a single run."""
        for seed in self.config.get("seeds", []):
            yield self.directory / f"seed-{seed}", {**without(self.config, "seeds"), "seed": seed}

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

    def run(self, state: TrainState, steps: int) -> Run:
        """What the user gets of a single seed."""
        return Run(self.directory, self.config, self.algorithm, self.env, steps, self.collector.spec, state)

    def runs(self, state: TrainState, steps: int) -> Runs:
        """What the user gets of several."""
        children = zip(self.children(), self.states(state), strict=True)
        make = lambda path, config, one: Run(  # noqa: E731
            path, config, self.algorithm, self.env, steps, self.collector.spec, one
        )
        return Runs(self.directory, self.config, [make(*child, one) for child, one in children])


def _drive(job: _Job, state: TrainState, start: int, quiet: bool) -> Run | Runs:
    """Train to the planned steps: log each chunk, save now and then, stop on a signal or at the target."""
    planned, target = job.config["steps"], job.config["target_return"]
    title = f"{job.config['algorithm']} on {_env_name(job.env)}"
    began, saving, saved = time.perf_counter(), 0.0, start
    steps, driver = start, _driver(job.algorithm)

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
    return job.runs(state, steps) if "seeds" in job.config else job.run(state, steps)


def _what_is_kept(job: _Job, saved: int) -> str:
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


def _open(directory: Path, algorithm: Algorithm | None, env: Environment | None) -> tuple[_Job, TrainState, int]:
    """The run in `directory` at its last good checkpoint, and its steps."""
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
    algorithm, collector = _collector(algorithm, env, config)
    job = _Job(directory, config, algorithm, env, collector)
    try:
        template = jax.eval_shape(
            lambda key: _driver(algorithm).init(algorithm, collector, key, config["steps"]), jax.random.key(0)
        )
        found, steps = _load_alike([path / "checkpoints" for path in job.directories()], template)
    except BaseException:
        _close(getattr(collector, "env", None))
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


def _make(env: Environment, num_envs: int, config: dict[str, Any], options: Mapping[str, Any] | None = None) -> Any:
    return envs.make(env, num_envs, config["asynchronous"], **(config["env_options"] if options is None else options))


def _driver(algorithm: Algorithm) -> Any:
    """The module whose `init` and `train` run the algorithm: its methods say whether workers wait for each other."""
    return asynchronous if isinstance(algorithm, AsynchronousAlgorithm) else training


def _collector(
    algorithm: Algorithm, env: Environment, config: dict[str, Any], options: Mapping[str, Any] | None = None
) -> tuple[Algorithm, Source]:
    """Where the algorithm's experience comes from, and the algorithm, which may plan there."""
    num_envs, exact_resume = config["num_envs"], config["exact_resume"]
    if _driver(algorithm) is asynchronous:
        return algorithm, asynchronous.Workers(partial(_make, env, 1, config, options), num_envs, exact_resume)
    algorithm, place = _with_simulator(algorithm, _make(env, num_envs, config, options))
    return algorithm, collector_for(place, num_envs, exact_resume)


def _with_simulator(algorithm: Any, env: Any, acts_only: bool = False) -> tuple[Any, Any]:
    """An algorithm that plans in the environment itself gets it, and sees its state; others stay as they are."""
    if is_on_host(env) or (acts_only and getattr(algorithm, "acts_without_simulator", False)):
        return algorithm, env
    simulator = Simulator(env)
    changed = informed(algorithm, simulator)
    return (algorithm, env) if changed is algorithm else (changed, simulator)


def _close(env: Any) -> None:
    if hasattr(env, "close"):
        env.close()


def _refuse_existing(directory: Path) -> None:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    try:
        config = configuration.read(directory)
    except BadInput:
        raise BadInput(f"{directory} exists and is no run directory; choose another with run= or --run") from None
    what = f"{directory} already holds a run of {config['algorithm']} on {_env_name(config['env'])}"
    if not any(directory.glob("**/checkpoints/*.json")):
        raise BadInput(f"{what}, without a checkpoint: delete it, or choose another directory with run= or --run")
    raise BadInput(f"{what}: go on with `parnassus resume {directory}`, or choose another directory with run= or --run")


def _check_count(name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise BadInput(f"{name} must be a whole number of at least {least}, not {value!r}")


def _check_steps(steps: Any) -> None:
    _check_count("steps", steps)
    if steps >= 2**31:
        raise BadInput(f"steps must be below 2^31 (they are counted in 32 bits), not {steps:,}")


def _check_seeds(seeds: list[int]) -> None:
    for seed in seeds:
        _check_count("seed", seed, least=0)
        if seed >= 2**32:
            raise BadInput(f"seed must be below 2^32, not {seed}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise BadInput(f"seeds must be one or more different numbers, not {seeds}")


def _env_name(env: Any) -> str:
    if isinstance(env, str):
        return env
    if isinstance(env, dict):  # of a config.json
        return str(env.get("object"))
    return getattr(env, "__name__", None) or type(env).__name__


def _file_name(env: Any) -> str:
    return _env_name(env).replace(":", "-").replace("/", "-")


def without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping but for one key."""
    return {name: value for name, value in mapping.items() if name != key}


def _one(x: np.ndarray, i: int) -> Any:
    return x if np.ndim(x) == 0 else x[i]


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else -np.inf


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _key_data(x: Any) -> Any:
    return jax.random.key_data(x) if _is_key(x) else x
