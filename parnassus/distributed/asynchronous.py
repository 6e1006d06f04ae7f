"""Workers that do not wait for each other: gradients applied to a shared learner without a lock (Hogwild).

    shared: the learner, one flat vector of 32-bit words; how many segments of the chunk are still to do
    each worker, in an environment of its own, while segments are left:
        copy   <- shared
        act with the copy for `num_steps` steps; gradients <- algorithm.gradients(copy, trajectory)
        before <- shared                           (what others made of it meanwhile)
        after  <- algorithm.apply(before, gradients, trajectory)
        shared parameters += after - before;  shared statistics <- after

Nothing keeps two workers from writing at the same time: a step may be lost where they do, and a copy may be taken half
way through another's writing. Niu et al. 2011 (arXiv 1106.5730) prove that stochastic gradient descent bears it.

On a JAX environment workers are threads: a segment is one compiled call, which leaves the interpreter to the others.
Gymnasium's environments need the interpreter all the time, so there each worker is a process, and the vector lies in
memory that they share; a script that trains so needs `if __name__ == "__main__":`.

`init` and `train` stand for those of `parnassus.training`; an iteration is one segment of one worker. Between two
chunks all workers rest, so a checkpoint is of one moment: parameters, statistics, counters, keys, and each worker's
episode. Resuming goes on from there, but not to the same bits: who writes when is up to the operating system. With one
worker nothing is left to chance, and resuming is exact.
"""

import dataclasses
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol, runtime_checkable

import cloudpickle  # type: ignore[import-untyped]
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from parnassus import configuration, training
from parnassus.collect import HostCollector, collector_for
from parnassus.compilation import Program
from parnassus.types import (
    Actor,
    AsynchronousAlgorithm,
    BadInput,
    Collector,
    Env,
    HostEnv,
    Key,
    Keys,
    Learner,
    ParnassusError,
    Spec,
    TrainingFailed,
    TrainState,
    Transition,
    Tree,
    check,
    pytree,
)


class Workers:
    """Where the experience of `num_workers` workers comes from: each makes its own environment."""

    def __init__(self, make: Callable[[], Env | HostEnv], num_workers: int, exact_resume: bool = True) -> None:
        self.make, self.num_workers, self.exact_resume = make, num_workers, exact_resume
        env = make()
        self.first = collector_for(env, 1, exact_resume)
        self.spec: Spec = self.first.spec  # of one worker: with one environment
        self.is_pure = self.first.is_pure
        if isinstance(self.first, HostCollector):  # it has told its spaces; the workers' are in their processes
            self.first.close()


def init(algorithm: AsynchronousAlgorithm, workers: Workers, key: Key | Keys, steps: int) -> TrainState:
    """The state before the first segment: one learner; actors and keys of all workers, [W, ...].

    Raises BadInput as `training.init` does, and for several seeds.
    """
    check(algorithm)
    if key.ndim > 0:
        raise BadInput(
            f"{type(algorithm).__name__} cannot train several seeds in one program, since its workers do not wait for "
            "each other; start a run per seed"
        )
    algorithm = training.arrays(algorithm)  # type: ignore[assignment]
    worker_key, learner_key, actor_key = training.split(key)
    learner = training.plan(training.init_learner(algorithm, learner_key, workers.spec), steps)
    actors = [workers.first.init(algorithm, k) for k in jax.random.split(actor_key, workers.num_workers)]
    keys = jax.random.split(worker_key, workers.num_workers)
    return TrainState(learner, _stack(actors), keys, jnp.int32(0))


def train(
    algorithm: AsynchronousAlgorithm,
    workers: Workers,
    state: TrainState,
    steps: int,
    chunk_iterations: int | None = None,
) -> Iterator[training.Chunk]:
    """Train until `steps` environment steps were taken by all workers together, chunk by chunk.

    Stop by leaving the caller's `for` (or closing the generator): the workers end with it. Raises TrainingFailed as
    `training.train` does, and if a worker raises or dies; it says which.
    """
    algorithm = training.arrays(algorithm)  # type: ignore[assignment]
    if int(state.iteration) > 0 and workers.num_workers > 1:
        print(
            f"{workers.num_workers} asynchronous workers go on from the saved parameters, statistics and counters; "
            "not to the bits that an unbroken run would have had",
            file=sys.stderr,
            flush=True,
        )
    size = chunk_iterations or training.default_chunk(algorithm, workers.spec, steps)
    crew: Crew = Threads(algorithm, workers) if workers.is_pure else Processes(algorithm, workers)
    with closing(crew):
        yield from training.chunks(partial(_run_chunk, crew), state, steps, algorithm.num_steps, size)


@runtime_checkable
class Crew(Protocol):
    """The workers at work."""

    shared: "Shared"

    def run(self, starts: list[tuple[Actor, Key]], segments: int) -> list["Done"]:
        """Let worker i go on from starts[i] until all have done so many segments together."""

    def close(self) -> None:
        """Stop the workers where they are."""


class Done(NamedTuple):
    """What a worker has to say after its part of a chunk."""

    actor: Actor
    key: Key
    rows: dict[str, np.ndarray]  # metrics of its segments [K]; empty if it had none


def _run_chunk(crew: Crew, state: TrainState, segments: int) -> tuple[TrainState, dict[str, np.ndarray]]:
    crew.shared.store(state.learner)
    actors = [jax.tree.map(lambda x, i=i: x[i], state.actor) for i in range(state.key.shape[0])]
    done = crew.run(list(zip(actors, state.key, strict=True)), segments)
    rows = [one.rows for one in done if one.rows]
    state = TrainState(
        crew.shared.load(),
        _stack([one.actor for one in done]),
        jnp.stack([one.key for one in done]),
        jnp.int32(int(state.iteration) + segments),
    )
    return state, {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


# The shared memory.


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the leaves of a learner lie in one vector of words: parameters, then whole numbers, then the rest."""

    structure: Any  # of the learner, a PyTreeDef
    order: tuple[int, ...]  # of its leaves in the vector
    shapes: tuple[tuple[int, ...], ...]  # in the learner's order, as are
    dtypes: tuple[str, ...]
    parameters: int  # how many words
    counters: int

    @classmethod
    def of(cls, algorithm: AsynchronousAlgorithm, learner: Learner) -> "Layout":
        """Raises BadInput for a learner with anything but float32 and int32."""
        leaves, structure = jax.tree.flatten(learner)
        dtypes = tuple(str(leaf.dtype) for leaf in leaves)
        if strange := set(dtypes) - {"float32", "int32"}:
            raise BadInput(f"workers share numbers of type float32 and int32, not {', '.join(sorted(strange))}")
        numbered = jax.tree.unflatten(structure, range(len(leaves)))
        is_parameter = set(jax.tree.leaves(algorithm.parameters(numbered)))
        kind = [0 if i in is_parameter else 1 if dtypes[i] == "int32" else 2 for i in range(len(leaves))]
        order = tuple(sorted(range(len(leaves)), key=lambda i: kind[i]))
        words = [sum(leaf.size for leaf, k in zip(leaves, kind, strict=True) if k == wanted) for wanted in (0, 1)]
        return cls(structure, order, tuple(leaf.shape for leaf in leaves), dtypes, *words)

    @property
    def size(self) -> int:
        """The length of the vector."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def pack(self, learner: Learner) -> np.ndarray:
        """The learner as words, int32.

        On the host: compiled together with what made the learner, this would change the last bits of its numbers.
        """
        leaves = jax.tree.leaves(learner)
        return np.concatenate([np.asarray(leaves[i]).ravel().view(np.int32) for i in self.order])

    @partial(jax.jit, static_argnums=0)
    def unpack(self, words: Int[Array, "words"] | np.ndarray) -> Learner:
        """The words as a learner."""
        leaves: list[Any] = [None] * len(self.order)
        start = 0
        for i in self.order:
            end = start + int(np.prod(self.shapes[i]))
            leaves[i] = jax.lax.bitcast_convert_type(words[start:end].reshape(self.shapes[i]), self.dtypes[i])
            start = end
        return jax.tree.unflatten(self.structure, leaves)


class Shared:
    """A learner that many read and write at once, without a lock."""

    def __init__(self, layout: Layout, words: np.ndarray) -> None:
        self.layout, self.words = layout, words

    def load(self) -> Learner:
        """The learner, with arrays of its own."""
        return self.layout.unpack(self.words.copy())

    def store(self, learner: Learner) -> None:
        """Put all of it there; for when nobody else is at work."""
        self.words[:] = self.layout.pack(learner)

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        """Write the step of a worker that read `before` and came to `after`.

        Steps of the parameters and of counters add up. Of statistics the last to write decides: a running mean of
        squares must not become negative, as sums of differences from different moments can.
        """
        end, rest = self.layout.parameters, self.layout.parameters + self.layout.counters
        theta, old, new = (words[:end].view(np.float32) for words in (self.words, before, after))
        if np.array_equal(self.words[:end], before[:end]):
            theta[:] = new  # old + (new - old) is not always new: so a lone worker's bits are a synchronous learner's
        else:
            theta += new - old
        self.words[end:rest] += after[end:rest] - before[end:rest]
        self.words[rest:] = after[rest:]


# A worker.


@pytree
class Row:
    """The metrics of a segment in one array: sixteen small ones take longer to hand over than to compute."""

    values: Float[Array, "M"]
    names: tuple[str, ...]


def work(
    algorithm: AsynchronousAlgorithm,
    collector: Collector,
    shared: Shared,
    take: Callable[[], bool],
    actor: Actor,
    key: Key,
) -> Done:
    """Do segments while `take()` says that one is left."""
    apply = _compiled_apply.chosen_once()
    if collector.is_pure:
        run = _compiled_segment.chosen_once()
    else:
        run = partial(_segment, differentiate=_compiled_differentiate.chosen_once())
    if not collector.is_pure:
        key, begin_key, _ = training.split(key)
        actor = collector.begin(algorithm, actor, begin_key)
    rows: list[Row] = []
    while take():
        actor, key, gradients, trajectory, row = run(
            algorithm, collector, shared.layout, shared.words.copy(), actor, key
        )
        before = shared.words.copy()
        after = apply(algorithm, shared.layout, before, gradients, trajectory)
        shared.add(before, shared.layout.pack(after))
        rows.append(row)
    if not rows:
        return Done(actor, key, {})
    values = np.stack([np.asarray(row.values) for row in rows], axis=-1).astype(np.float64)
    return Done(actor, key, dict(zip(rows[0].names, values, strict=True)))


def _differentiate(
    algorithm: AsynchronousAlgorithm, learner: Learner, trajectory: Transition, key: Key, episodes: dict
) -> tuple[Tree, Row]:
    gradients, metrics = algorithm.gradients(learner, trajectory, key)
    metrics = {**metrics, **training.finite_flags(trajectory), **episodes}
    return gradients, Row(jnp.stack([jnp.asarray(x, jnp.float32) for x in metrics.values()]), tuple(metrics))


def _segment(
    algorithm: AsynchronousAlgorithm,
    collector: Collector,
    layout: Layout,
    words: Tree,
    actor: Actor,
    key: Key,
    differentiate: Callable = _differentiate,
) -> tuple[Actor, Key, Tree, Transition, Row]:
    """Act with the copy and differentiate: what `training.iterate` does, without the step."""
    learner = layout.unpack(words)
    key, collect_key, learn_key = training.split(key)
    actor, trajectory = collector.collect(algorithm, algorithm.behavior(learner), actor, collect_key)
    gradients, row = differentiate(algorithm, learner, trajectory, learn_key, training.episode_sums(actor))
    return actor, key, gradients, trajectory, row


def _apply(
    algorithm: AsynchronousAlgorithm, layout: Layout, words: Tree, gradients: Tree, trajectory: Transition
) -> Learner:
    return algorithm.apply(layout.unpack(words), gradients, trajectory)


_compiled_segment = Program(_segment, static_argnames="layout")
_compiled_differentiate = Program(_differentiate)
_compiled_apply = Program(_apply, static_argnames="layout")


def _layout(algorithm: AsynchronousAlgorithm, spec: Spec) -> Layout:
    key = jax.eval_shape(lambda: jax.random.key(0))
    return Layout.of(algorithm, jax.eval_shape(partial(algorithm.init, spec=spec), key))


class Tickets:
    """How many segments of the chunk nobody has begun yet. Only this has a lock: chunks end where they should."""

    def __init__(self, context: Any) -> None:
        self.left = context.Value("q", 0)

    def put(self, number: int) -> None:
        """So many from now on; 0 lets every worker stop after its segment."""
        self.left.value = number

    def take(self) -> bool:
        """Whether there was one."""
        with self.left.get_lock():
            self.left.value -= 1
            return self.left.value >= 0


# Threads, for JAX environments.


class Threads:
    """A thread for each worker."""

    def __init__(self, algorithm: AsynchronousAlgorithm, workers: Workers) -> None:
        layout = _layout(algorithm, workers.spec)
        self.shared = Shared(layout, np.zeros(layout.size, np.int32))
        self._collector = workers.first
        self._algorithms = [algorithm.worker(i, workers.num_workers) for i in range(workers.num_workers)]
        self._tickets = Tickets(multiprocessing)
        self._pool = ThreadPoolExecutor(workers.num_workers, "parnassus-worker")
        self._is_compiled = False

    def run(self, starts: list[tuple[Actor, Key]], segments: int) -> list[Done]:
        """Raises TrainingFailed for the first worker that raised."""
        if not self._is_compiled:  # by one thread, not by all at once
            aside = Shared(self.shared.layout, self.shared.words.copy())
            work(self._algorithms[0], self._collector, aside, iter([True, False]).__next__, *_copy(starts[0]))
            self._is_compiled = True
        self._tickets.put(segments)
        futures = [
            self._pool.submit(self._work, algorithm, *start)
            for algorithm, start in zip(self._algorithms, starts, strict=True)
        ]
        try:
            for future in futures:
                future.exception()  # which waits for it
        finally:
            self._tickets.put(0)
        for i, future in enumerate(futures):
            if error := future.exception():
                raise TrainingFailed(_what_failed(i, len(futures), error)) from error
        return [future.result() for future in futures]

    def _work(self, algorithm: AsynchronousAlgorithm, actor: Actor, key: Key) -> Done:
        try:
            return work(algorithm, self._collector, self.shared, self._tickets.take, actor, key)
        except BaseException:
            self._tickets.put(0)
            raise

    def close(self) -> None:
        """Wait for the segments that are under way."""
        self._tickets.put(0)
        self._pool.shutdown()


def _copy(start: tuple[Actor, Key]) -> tuple[Actor, Key]:
    actor, key = start
    return actor, jax.random.clone(key)


# Processes, for environments on the host.


class Processes:
    """A process for each worker, with the learner in memory that all of them map."""

    def __init__(self, algorithm: AsynchronousAlgorithm, workers: Workers) -> None:
        # Never "fork": JAX has threads, and a forked child may hang. The server imports JAX once, not each worker.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        layout = _layout(algorithm, workers.spec)
        memory = context.RawArray("i", layout.size)
        self.shared = Shared(layout, np.frombuffer(memory, np.int32))
        self._tickets = Tickets(context)
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for i in range(workers.num_workers):
            ours, theirs = context.Pipe()
            one = algorithm.worker(i, workers.num_workers)
            recipe = cloudpickle.dumps((jax.tree.map(np.asarray, one), workers.make, workers.exact_resume))
            process = context.Process(
                target=_process, args=(recipe, memory, self._tickets, theirs), daemon=True, name=f"parnassus-worker-{i}"
            )
            process.start()
            theirs.close()  # so that the pipe ends when the process does
            self._pipes.append(ours)
            self._processes.append(process)
        self._gather()  # until every environment is made

    def run(self, starts: list[tuple[Actor, Key]], segments: int) -> list[Done]:
        """Raises TrainingFailed for the first worker that raised or died."""
        self._tickets.put(segments)
        for pipe, (actor, key) in zip(self._pipes, starts, strict=True):
            pipe.send((jax.tree.map(np.asarray, actor), np.asarray(jax.random.key_data(key))))
        return [done._replace(key=jax.random.wrap_key_data(jnp.array(done.key))) for done in self._gather()]

    def _gather(self) -> list[Any]:
        """An answer from each worker; the first bad one stops them all."""
        answers: dict[int, Any] = {}
        number = {id(pipe): i for i, pipe in enumerate(self._pipes)}
        while len(answers) < len(self._pipes):
            for pipe in wait([pipe for i, pipe in enumerate(self._pipes) if i not in answers]):
                i = number[id(pipe)]
                try:
                    answer = pipe.recv()  # type: ignore[union-attr, call-arg]
                except (EOFError, ConnectionResetError):
                    self._processes[i].join()
                    status = self._processes[i].exitcode
                    raise TrainingFailed(
                        f"the process of worker {i + 1} of {len(self._pipes)} died (exit status {status})"
                    ) from None
                if isinstance(answer, _Failure):
                    cause = RuntimeError(f"in worker {i + 1}:\n{answer.traceback}")
                    if answer.is_bad_input:
                        raise BadInput(answer.message) from cause
                    raise TrainingFailed(f"{answer.message} (worker {i + 1} of {len(self._pipes)})") from cause
                answers[i] = answer
        return [answers[i] for i in range(len(self._pipes))]

    def close(self) -> None:
        """End the processes, wherever they are."""
        self._tickets.put(0)
        for pipe in self._pipes:
            pipe.close()  # one that rests finds its end and leaves
        for process in self._processes:
            process.join(1.0)
            if process.is_alive():
                process.terminate()
                process.join()


class _Failure(NamedTuple):
    """An exception on its way home: not every one can be pickled."""

    message: str
    traceback: str
    is_bad_input: bool


def _process(recipe: bytes, memory: Any, tickets: Tickets, pipe: Connection) -> None:
    # Control-C reaches every process of the terminal; it is the parent that decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jax.config.update("jax_platforms", "cpu")  # an accelerator cannot be shared by processes
    configuration.configure()
    try:
        algorithm, make, exact_resume = cloudpickle.loads(recipe)
        algorithm = jax.tree.map(jnp.asarray, algorithm)
        collector = collector_for(make(), 1, exact_resume)
        shared = Shared(_layout(algorithm, collector.spec), np.frombuffer(memory, np.int32))
        pipe.send(None)
        while True:
            actor, key = pipe.recv()
            done = work(algorithm, collector, shared, tickets.take, actor, jax.random.wrap_key_data(jnp.array(key)))
            key_data = np.asarray(jax.random.key_data(done.key))
            pipe.send(Done(jax.tree.map(np.asarray, done.actor), key_data, done.rows))  # type: ignore[arg-type]
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the parent is gone or done
    except BaseException as error:
        tickets.put(0)
        pipe.send(_Failure(_one_line(error), traceback.format_exc(), isinstance(error, BadInput)))
        pipe.close()


def _what_failed(i: int, number: int, error: BaseException) -> str:
    return f"{_one_line(error)} (worker {i + 1} of {number})"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ParnassusError) else f"a worker raised {type(error).__name__}: {text}"


def _stack(trees: list[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *trees)
