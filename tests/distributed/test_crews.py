"""Workers side by side, in threads and in processes, and what becomes of the others when one fails."""

import os
from functools import partial

import jax
import pytest

import parnassus as pa
from parnassus import training
from parnassus.distributed import asynchronous
from parnassus.distributed.crews import Threads, Workers
from tests.distributed.shared_learners import TINY
from tests.probe_envs import Probe
from tests.tiny_runs import raises_at, tiny_run, well_behaved


def test_workers_are_told_of_one_environment_each():
    threads = Workers(lambda: Probe("endless"), 3)
    assert (threads.num_workers, threads.spec.num_envs, threads.is_pure) == (3, 1, True)
    assert not Workers(partial(pa.envs.make, well_behaved), 2).is_pure


def test_a_thread_that_raises_stops_the_others():
    """Its message and its cause; and the others do not go on to the end of the chunk."""

    workers = Workers(lambda: Probe("endless"), 3)
    state = asynchronous.init(TINY, workers, jax.random.key(0), 10**9)
    algorithm = training.arrays(TINY)
    crew = Threads(algorithm, workers)
    crew.shared.store(state.learner)
    actors = [jax.tree.map(lambda x, i=i: x[i], state.actor) for i in range(3)]
    starts = list(zip(actors, state.key, strict=True))
    crew.run(starts, 3)
    starts[1] = (None, starts[1][1])  # the second one has no actor to go on with
    with pytest.raises(pa.TrainingFailed, match=r"a worker raised .* \(worker 2 of 3\)") as failure:
        crew.run(starts, 10**9)
    assert failure.value.__cause__ is not None
    crew.close()


@pytest.mark.slow
def test_an_environment_that_raises_in_a_process(tmp_path):
    with pytest.raises(pa.TrainingFailed) as failure:
        tiny_run(tmp_path / "run", raises_at(200), algorithm=TINY, steps=10_000)
    message = str(failure.value)
    assert message.startswith("the environment raised RuntimeError: the gripper is stuck (worker ")
    assert "the last good checkpoint, of step " in message
    assert "Misbehaving" in str(failure.value.__cause__) or "at_step" in str(failure.value.__cause__)  # its traceback
    assert pa.resume(tmp_path / "run", env=well_behaved, steps=1_000, quiet=True).steps == 1_000


@pytest.mark.slow
def test_a_process_that_dies_is_noticed(tmp_path):
    with pytest.raises(pa.TrainingFailed, match=r"the process of worker \d of 2 died \(exit status 3\)"):
        tiny_run(tmp_path / "run", partial(dying, os.getpid()), algorithm=TINY, steps=10_000)


def dying(parent):
    from tests.tiny_runs import Misbehaving

    return Misbehaving(lambda step: os._exit(3) if step == 20 and os.getpid() != parent else None)
