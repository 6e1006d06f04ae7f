"""Workers that do not wait for each other: gradients applied to a shared learner without a lock (Hogwild).

    shared.py    the learner, one flat vector of 32-bit words; how many segments of the chunk are still to do
    worker.py    copy the learner, act with it, differentiate, write the step into the vector
    crews.py     workers side by side, threads or processes, each in an environment of its own

`init` and `train` here stand for those of `parnassus.training`; an iteration is one segment of one worker. Between two
chunks all workers rest, so a checkpoint is of one moment: parameters, statistics, counters, keys, and each worker's
episode. Resuming goes on from there, but not to the same bits: who writes when is up to the operating system. With one
worker nothing is left to chance, and resuming is exact.
"""

import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from parnassus import training
from parnassus.distributed.crews import Crew, Processes, Threads, Workers
from parnassus.types import AsynchronousAlgorithm, BadInput, Key, Keys, TrainState, Tree, check


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


def _stack(trees: list[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *trees)
