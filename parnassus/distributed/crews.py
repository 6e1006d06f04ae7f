"""Workers at work side by side: threads where the environment is JAX's, processes where it is not.

A segment in a JAX environment is one compiled call, which leaves the interpreter to the other threads. Gymnasium's
environments need the interpreter all the time, so there each worker is a process, and the learner's vector lies in
memory that they share; a script that trains so needs `if __name__ == "__main__":`.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol, runtime_checkable

import cloudpickle  # type: ignore[import-untyped]
import jax
import jax.numpy as jnp
import numpy as np

from parnassus import configuration
from parnassus.collect import HostCollector, collector_for
from parnassus.distributed.shared import Shared, Tickets, layout_of
from parnassus.distributed.worker import Done, work
from parnassus.types import (
    Actor,
    AsynchronousAlgorithm,
    BadInput,
    Env,
    HostEnv,
    Key,
    ParnassusError,
    Spec,
    TrainingFailed,
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


@runtime_checkable
class Crew(Protocol):
    """The workers at work."""

    shared: Shared

    def run(self, starts: list[tuple[Actor, Key]], segments: int) -> list[Done]:
        """Let worker i go on from starts[i] until all have done so many segments together."""

    def close(self) -> None:
        """Stop the workers where they are."""


class Threads:
    """A thread for each worker."""

    def __init__(self, algorithm: AsynchronousAlgorithm, workers: Workers) -> None:
        layout = layout_of(algorithm, workers.spec)
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


class Processes:
    """A process for each worker, with the learner in memory that all of them map."""

    def __init__(self, algorithm: AsynchronousAlgorithm, workers: Workers) -> None:
        # Never "fork": JAX has threads, and a forked child may hang. The server imports JAX once, not each worker.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        layout = layout_of(algorithm, workers.spec)
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
        shared = Shared(layout_of(algorithm, collector.spec), np.frombuffer(memory, np.int32))
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
