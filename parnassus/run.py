"""Runs: `train` makes one in a directory of its own, `resume` goes on with it, `load` reads it back.

    runs/ppo-CartPole-v1-0/
        config.json        everything needed to repeat the run, versions included
        metrics.csv        a row per chunk; the same as TensorBoard events
        checkpoints/       the last two; see `parnassus.checkpoint`
        evaluations.csv    a row per call of `evaluate`

Several seeds are a directory of such directories, seed-0, seed-1, ..., with their summary.csv.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from parnassus import configuration, training
from parnassus.evaluation import Evaluation, evaluate
from parnassus.job import Job, drive, open_job
from parnassus.policy import Policy
from parnassus.presets import algorithm_name, default_num_envs, preset
from parnassus.schedules import plan
from parnassus.simulator import visible_space
from parnassus.source import Environment, close, driver_of, env_name, make, source_of, with_simulator
from parnassus.tracking import read_columns
from parnassus.types import Algorithm, BadInput, Behavior, Spec, TrainState


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
        made = make(self.env, min(self.config["num_envs"], episodes), self.config)
        try:
            algorithm, place = with_simulator(self.algorithm, made, acts_only=True)
            result = evaluate(training.arrays(algorithm), self._behavior(), place, episodes, seed)
        finally:
            close(made)
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
    algorithm, collector = source_of(algorithm, env, config, env_options)
    with ExitStack() as stack:
        stack.callback(close, getattr(collector, "env", None))
        key = jax.random.key(seed) if seed_list is None else jax.vmap(jax.random.key)(jnp.array(seed_list, jnp.uint32))
        driver = driver_of(algorithm)
        state = driver.init(algorithm, collector, key, steps)
        iteration_steps = algorithm.num_steps * collector.spec.num_envs
        config["chunk_iterations"] = (
            training.default_chunk(algorithm, collector.spec, steps)
            if chunk_steps is None
            else max(1, round(chunk_steps / iteration_steps))
        )
        config |= ({"seed": seed} if seed_list is None else {"seeds": seed_list}) | configuration.describe()
        directory.mkdir(parents=True, exist_ok=True)
        job = Job(directory, config, algorithm, env, collector)
        for child, child_config in job.children():
            child.mkdir(exist_ok=True)
            configuration.write(child, child_config)
        configuration.write(directory, config)
        return _result(job, *drive(job, state, 0, quiet))


def load(directory: str | Path, algorithm: Algorithm | None = None, env: Environment | None = None) -> Run:
    """The run in a directory, at its last good checkpoint. One of several seeds is in a directory of its own.

    `algorithm` and `env` are needed where config.json cannot say them: an algorithm or network of your own, an
    environment that is not a name. Raises BadInput if the directory is no run, or of another algorithm or shapes.
    """
    directory = Path(directory)
    if seeds := configuration.read(directory).get("seeds"):
        raise BadInput(
            f"{directory} holds {len(seeds)} seeds: load one of them, such as {directory / f'seed-{seeds[0]}'}, "
            "or all of them with load_seeds"
        )
    job, state, steps = open_job(directory, algorithm, env)
    close(getattr(job.collector, "env", None))
    return _run(job, state, steps)


def load_seeds(directory: str | Path, algorithm: Algorithm | None = None, env: Environment | None = None) -> Runs:
    """The runs in a directory of several seeds, where they were last together. Raises BadInput as `load` does."""
    directory = Path(directory)
    if "seeds" not in configuration.read(directory):
        raise BadInput(f"{directory} holds a single run, not several seeds")
    job, state, steps = open_job(directory, algorithm, env)
    return _runs(job, state, steps)


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
    job, state, taken = open_job(directory, algorithm, env)
    config = job.config
    with ExitStack() as stack:
        stack.callback(close, getattr(job.collector, "env", None))
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
        return _result(job, *drive(job, state, taken, quiet))


def _result(job: Job, state: TrainState, steps: int) -> Run | Runs:
    """What the user gets."""
    return _runs(job, state, steps) if "seeds" in job.config else _run(job, state, steps)


def _run(job: Job, state: TrainState, steps: int) -> Run:
    return Run(job.directory, job.config, job.algorithm, job.env, steps, job.collector.spec, state)


def _runs(job: Job, state: TrainState, steps: int) -> Runs:
    each = zip(job.children(), job.states(state), strict=True)
    return Runs(
        job.directory,
        job.config,
        [Run(path, config, job.algorithm, job.env, steps, job.collector.spec, one) for (path, config), one in each],
    )


def _refuse_existing(directory: Path) -> None:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    try:
        config = configuration.read(directory)
    except BadInput:
        raise BadInput(f"{directory} exists and is no run directory; choose another with run= or --run") from None
    what = f"{directory} already holds a run of {config['algorithm']} on {env_name(config['env'])}"
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


def _file_name(env: Any) -> str:
    return env_name(env).replace(":", "-").replace("/", "-")
