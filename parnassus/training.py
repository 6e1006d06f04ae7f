"""The loop: `iterate` is the whole of training, a chunk is many iterations, `train` yields after each chunk."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from parnassus.compilation import Program
from parnassus.memory import refuse_what_does_not_fit
from parnassus.schedules import plan
from parnassus.simulator import Simulator
from parnassus.types import (
    Actor,
    Algorithm,
    BadInput,
    Collector,
    EnvironmentRaised,
    Key,
    Keys,
    Learner,
    Metrics,
    Spec,
    TrainingFailed,
    TrainState,
    Transition,
    Tree,
    check,
)


class Chunk(NamedTuple):
    """What `train` yields."""

    state: TrainState  # after the chunk; the next chunk will consume it, so save or copy it before asking for that
    steps: int  # environment steps taken so far, by each seed
    metrics: dict[str, np.ndarray]  # means over the chunk's iterations; [] or, with several seeds, [S]


RunChunk = Callable[[TrainState, int], tuple[TrainState, dict[str, np.ndarray]]]


def learn(algorithm: Algorithm, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
    """One call of `algorithm.learn`, with flags that say whether what it was given, and what it said, is finite.

    The key may be raw, see `split`.
    """
    is_raw = jnp.issubdtype(key.dtype, jnp.integer)
    learner, metrics = algorithm.learn(learner, trajectory, jax.random.wrap_key_data(key) if is_raw else key)
    return learner, {**metrics, **finite_flags(trajectory)}


compiled_learn = Program(learn, donate_argnames="learner")


def finite_flags(trajectory: Transition) -> Metrics:
    """Whether what the environment gave, and what it was given, is finite."""
    return {
        "finite/reward": jnp.isfinite(trajectory.reward).all(),
        "finite/observation": _all_finite((trajectory.observation, trajectory.next_observation)),
        "finite/action": _all_finite(trajectory.action),
    }


def episode_sums(actor: Actor) -> dict[str, Any]:
    """How many episodes ended in the last trajectory, and the sums of their returns and lengths."""
    return {name: getattr(actor.episodes, name) for name in ("ended", "ended_return", "ended_length")}


@jax.jit
def split(key: Key) -> tuple[Key, Key, Key]:
    """Three keys for one, in one dispatch; raw ones for a raw one, as from `jax.random.key_data`.

    A host loop's keys are raw: typed ones take JAX's slow way in and out of a compiled function.
    """
    first, second, third = jax.random.split(key, 3)
    return first, second, third


def iterate(
    algorithm: Algorithm, collector: Collector, state: TrainState, learn: Callable = learn
) -> tuple[TrainState, Metrics]:
    """The whole of training: act for a while, learn from it."""
    key, collect_key, learn_key = split(state.key)
    actor, trajectory = collector.collect(algorithm, algorithm.behavior(state.learner), state.actor, collect_key)
    learner, metrics = learn(algorithm, state.learner, trajectory, learn_key)
    return TrainState(learner, actor, key, state.iteration + 1), {**metrics, **episode_sums(actor)}


@partial(Program, static_argnames=("max_iterations",), donate_argnames="state")
def compiled_chunk(
    algorithm: Algorithm, collector: Collector, state: TrainState, num_iterations: Int[Array, ""], max_iterations: int
) -> tuple[TrainState, Metrics]:
    """`num_iterations` iterations in one program; the metrics' rows beyond are zeros, [max_iterations].

    A state of several seeds [S, ...] runs them side by side, spread over the devices; metrics [S, max_iterations].
    """

    def run(state: TrainState, num_iterations: Int[Array, ""]) -> tuple[TrainState, Metrics]:
        row = jax.eval_shape(lambda s: iterate(algorithm, collector, s)[1], state)
        rows = jax.tree.map(lambda x: jnp.zeros((max_iterations, *x.shape), x.dtype), row)

        def body(i: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, rows = carry
            state, row = iterate(algorithm, collector, state)
            return state, jax.tree.map(lambda kept, x: kept.at[i].set(x), rows, row)

        # A bound known only at run time: the last, shorter chunk is the same program.
        return jax.lax.fori_loop(0, num_iterations, body, (state, rows))

    if state.iteration.ndim == 0:
        return run(state, num_iterations)
    each_seed, all_alike = PartitionSpec("seed"), PartitionSpec()
    return jax.shard_map(
        jax.vmap(run, in_axes=(0, None)),
        mesh=seed_mesh(state.iteration.shape[0]),
        in_specs=(each_seed, all_alike),
        out_specs=each_seed,
        check_vma=False,
    )(state, num_iterations)


def seed_mesh(num_seeds: int) -> Mesh:
    """As many devices as can share the seeds evenly."""
    num_devices = max(d for d in range(1, jax.device_count() + 1) if num_seeds % d == 0)
    return Mesh(np.array(jax.devices()[:num_devices]), ("seed",))


def host_chunk(
    algorithm: Algorithm, collector: Collector, state: TrainState, num_iterations: int
) -> tuple[TrainState, dict[str, np.ndarray]]:
    """`num_iterations` iterations in a Python loop; metrics [K]."""
    key, begin_key, _ = split(jax.random.key_data(state.key))
    actor = collector.begin(algorithm, state.actor, begin_key)
    state = TrainState(state.learner, actor, key, np.int32(state.iteration))  # type: ignore[arg-type]  # no dispatch to count
    rows, compiled = [], compiled_learn.chosen_once()
    for _ in range(num_iterations):
        try:
            state, metrics = iterate(algorithm, collector, state, compiled)
        except EnvironmentRaised as error:
            raise _failed(error, algorithm, collector, int(state.iteration)) from error.__cause__
        rows.append(metrics)
    return state._replace(key=jax.random.wrap_key_data(state.key)), _stacked(rows)


def overlapped_chunk(
    algorithm: Algorithm, collector: Collector, state: TrainState, num_iterations: int
) -> tuple[TrainState, dict[str, np.ndarray]]:
    """A `host_chunk` that learns in a thread while the next trajectory is collected, with parameters an update older.

    Which parameters act when is fixed: those of `state` in the chunk's first two iterations, then in iteration i those
    after i - 1 updates. At the chunk's end nothing is under way, so resuming is exact.
    """
    learner, iteration = state.learner, int(state.iteration)
    key, begin_key, _ = split(jax.random.key_data(state.key))
    actor = collector.begin(algorithm, state.actor, begin_key)
    behavior = algorithm.behavior(learner)
    rows: list[dict[str, Any]] = []
    compiled = compiled_learn.chosen_once()
    with ThreadPoolExecutor(1, "learn") as thread:
        under_way: Future | None = None
        for i in range(num_iterations):
            key, collect_key, learn_key = split(key)
            try:
                actor, trajectory = collector.collect(algorithm, behavior, actor, collect_key)
            except EnvironmentRaised as error:
                raise _failed(error, algorithm, collector, iteration + i) from error.__cause__
            if under_way:
                learner, metrics = under_way.result()
                rows[-1].update(metrics)
            behavior = _copies(algorithm.behavior(learner))  # `learn` donates the learner
            under_way = thread.submit(compiled, algorithm, learner, trajectory, learn_key)
            rows.append(episode_sums(actor))
        if under_way:
            learner, metrics = under_way.result()
            rows[-1].update(metrics)
    key = jax.random.wrap_key_data(key)
    return TrainState(learner, actor, key, np.int32(iteration + num_iterations)), _stacked(rows)  # type: ignore[arg-type]


@jax.jit
def _copies(tree: Tree) -> Tree:
    """Every array in a buffer of its own, by one call: leaf by leaf takes five times as long."""
    return jax.tree.map(jnp.copy, tree)


def _failed(error: EnvironmentRaised, algorithm: Algorithm, collector: Collector, iteration: int) -> TrainingFailed:
    """What to raise for an environment that raised while this iteration (0-based) collected."""
    steps = (iteration * algorithm.num_steps + error.step + 1) * collector.spec.num_envs
    return TrainingFailed(f"{error} (at environment step {steps:,})")


def _stacked(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


@partial(jax.jit, static_argnames=("spec",))
def init_learner(algorithm: Algorithm, key: Key | Keys, spec: Spec) -> Learner:
    """A fresh learner, or one for each key of a batch [S]."""
    init = partial(algorithm.init, spec=spec)
    # One after the other, not vmapped: XLA's batched QR (orthogonal initialisation) now and then deadlocks on the CPU.
    return init(key) if key.ndim == 0 else jax.lax.map(lambda k: init(k), key)


@jax.jit
def _init_actors(algorithm: Algorithm, collector: Collector, keys: Keys) -> Actor:
    return jax.vmap(lambda key: collector.init(algorithm, key))(keys)


def init(algorithm: Algorithm, collector: Collector, key: Key | Keys, steps: int) -> TrainState:
    """The state before the first iteration, planned for `steps` environment steps; a key batch [S] gives S seeds.

    Raises BadInput for hyper-parameters out of bounds, where the algorithm cannot act in the environment, and where the
    learner (its replay, that is) does not fit into memory.
    """
    check(algorithm)
    algorithm = arrays(algorithm)
    refuse_what_does_not_fit(jax.eval_shape(init_learner, algorithm, key, collector.spec))
    if key.ndim == 0:
        key, learner_key, actor_key = split(key)
        learner = init_learner(algorithm, learner_key, collector.spec)
        actor = collector.init(algorithm, actor_key)
        return _own(TrainState(plan(learner, steps), actor, key, jnp.int32(0)))
    if not collector.is_pure:
        raise BadInput(
            "several seeds in one program need a JAX environment (jax:..., gymnax:...); start a run per seed"
        )
    key, learner_key, actor_key = jax.vmap(split)(key)
    learner = jax.vmap(lambda one: plan(one, steps))(init_learner(algorithm, learner_key, collector.spec))
    actor = _init_actors(algorithm, collector, actor_key)
    state = _own(TrainState(learner, actor, key, jnp.zeros(key.shape, jnp.int32)))
    return jax.device_put(state, NamedSharding(seed_mesh(key.size), PartitionSpec("seed")))


def train(
    algorithm: Algorithm, collector: Collector, state: TrainState, steps: int, chunk_iterations: int | None = None
) -> Iterator[Chunk]:
    """Train until `steps` environment steps were taken in all (rounded up to a whole iteration), chunk by chunk.

    Stop by leaving the caller's `for`; go on by passing the last chunk's state. Raises TrainingFailed as soon as a
    reward, an observation, a metric or a parameter is not finite, or the environment raises.
    """
    algorithm = arrays(algorithm)
    size = chunk_iterations or default_chunk(algorithm, collector.spec, steps)

    def run(state: TrainState, length: int) -> tuple[TrainState, dict[str, np.ndarray]]:
        if not collector.is_pure:
            run_on_host = overlapped_chunk if getattr(algorithm, "overlap", False) else host_chunk
            return run_on_host(algorithm, collector, state, length)
        state, rows = compiled_chunk(algorithm, collector, state, np.int32(length), max_iterations=size)
        return state, {name: np.asarray(row)[..., :length] for name, row in rows.items()}

    yield from chunks(run, state, steps, algorithm.num_steps * collector.spec.num_envs, size)


def chunks(run: RunChunk, state: TrainState, steps: int, steps_per_iteration: int, size: int) -> Iterator[Chunk]:
    """Chunks of `size` iterations by `run`, until `steps` were taken; each is checked to be finite.

    `run(state, length)` does so many iterations: the state after them, and the rows of their metrics [..., length].
    """
    total = -(-steps // steps_per_iteration)
    iteration = int(np.max(state.iteration))
    while iteration < total:
        # Chunks end at multiples of their size, so that a run stopped anywhere and resumed has the same chunks.
        length = min(size - iteration % size, total - iteration)
        began, compiled_before = time.perf_counter(), _compile_seconds[0]
        state, rows = run(state, length)
        compile_seconds = _compile_seconds[0] - compiled_before
        seconds = max(time.perf_counter() - began - compile_seconds, 1e-9)
        raise_if_not_finite(state.learner, rows, iteration, steps_per_iteration)
        iteration += length
        metrics = summarize(rows)
        num_seeds = int(np.size(state.iteration))
        metrics["time/steps_per_second"] = np.asarray(length * steps_per_iteration * num_seeds / seconds)
        metrics["time/compile_seconds"] = np.asarray(compile_seconds)
        yield Chunk(state, iteration * steps_per_iteration, metrics)


def default_chunk(algorithm: Algorithm, spec: Spec, steps: int) -> int:
    """Iterations per chunk: a fiftieth of the run, but long enough for episodes to end, and at most a tenth."""
    wanted = max(steps / 50, min(2000 * spec.num_envs, steps / 10))
    per_iteration = algorithm.num_steps * spec.num_envs
    return max(1, min(-(-steps // per_iteration), round(wanted / per_iteration)))


def summarize(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A chunk's metrics from its iterations' [..., K]: means, where episodes count alike, whenever they ended."""
    ended = rows["ended"].sum(-1)
    metrics = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, row in rows.items():
            if "/" in name and not name.startswith("finite/"):
                metrics[name] = _nanmean(row)
        metrics["episode/return"] = rows["ended_return"].sum(-1) / ended
        metrics["episode/length"] = rows["ended_length"].sum(-1) / ended
    metrics["episode/count"] = ended
    return {name: np.asarray(metric) for name, metric in metrics.items()}


def _nanmean(row: np.ndarray) -> np.ndarray | np.floating:
    """The mean of the iterations that had the metric: NaN says "nothing to report", e.g. before the first update."""
    known = ~np.isnan(row)
    return np.where(known, row, 0.0).sum(-1) / known.sum(-1)


def raise_if_not_finite(
    learner: Learner, rows: dict[str, np.ndarray], iteration: int, steps_per_iteration: int
) -> None:
    """Raise TrainingFailed that names what is not finite first, and where."""
    flags = {name.removeprefix("finite/"): row for name, row in rows.items() if name.startswith("finite/")}
    flags |= {name: ~np.isinf(row) for name, row in rows.items() if "/" in name}
    bad = {name: int(np.argmin(row.all(tuple(range(row.ndim - 1))))) for name, row in flags.items() if not row.all()}
    if bad:
        name = min(bad, key=lambda n: bad[n])  # the earliest; environment before losses among equals
        start = (iteration + bad[name]) * steps_per_iteration
        raise TrainingFailed(
            f"{name} is not finite (NaN or infinite) in iteration {iteration + bad[name] + 1}, "
            f"environment steps {start + 1:,} to {start + steps_per_iteration:,}"
        )
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(learner)]
    finite = np.asarray(_finite_leaves(learner))
    if not finite.all():
        raise TrainingFailed(
            f"{names[int(np.argmin(finite))]} is not finite (NaN or infinite) after environment step "
            f"{(iteration + rows['ended'].shape[-1]) * steps_per_iteration:,}; a smaller learning rate may help"
        )


@jax.jit
def _finite_leaves(tree: Tree) -> jax.Array:
    return jnp.stack([_all_finite(leaf) for leaf in jax.tree.leaves(tree)])


def _all_finite(tree: Tree) -> jax.Array:
    real = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in real])) if real else jnp.array(True)


def _own(tree: Tree) -> Tree:
    """Every JAX array in a buffer of its own, so that the loop may donate them all, and of a dtype of its own: one that
    comes of a Python number is weak until the first chunk ends, and the second would be compiled anew.

    But for very large ones, such as a replay's: twice they may not fit, and nobody shares them.
    """

    def own(x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.nbytes >= 2**26:
            return x
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return x.copy() if is_key else jax.lax.convert_element_type(x.copy(), x.dtype)

    return jax.tree.map(own, tree)


def arrays(algorithm: Algorithm) -> Algorithm:
    """The algorithm with its real numbers as arrays: converted once, not at every call of a compiled function.

    Its numbers are all real; those of an environment that it plans in may be whole.
    """

    def convert(x: Any) -> Any:
        if isinstance(x, Simulator):
            return jax.tree.map(jnp.asarray, x)
        return jnp.asarray(x, jnp.float32) if isinstance(x, float | int) else x

    return jax.tree.map(convert, algorithm, is_leaf=lambda x: isinstance(x, Simulator))


_compile_seconds = [0.0]


def _on_event(event: str, duration_secs: float, **_: object) -> None:
    if event.startswith("/jax/core/compile/"):
        _compile_seconds[0] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_on_event)
