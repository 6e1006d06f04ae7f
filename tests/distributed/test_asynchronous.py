"""Asynchronous training: learning without a lock, what is counted, what is saved, what goes wrong."""

import contextlib
import json
import os
import signal
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parnassus as pa
from parnassus import envs
from parnassus.algorithms.a3c import A3C
from parnassus.distributed import asynchronous
from parnassus.distributed.crews import Workers
from parnassus.envs.wrap import as_gymnasium
from tests.algorithms.test_probes import VALUE_PROBES
from tests.distributed.shared_learners import TINY, same
from tests.probe_envs import Probe
from tests.tiny_runs import tiny_run, well_behaved

GAMMA = 0.8


def run_all(algorithm, workers, steps, seed=0, state=None, **options):
    state = asynchronous.init(algorithm, workers, jax.random.key(seed), steps) if state is None else state
    return list(asynchronous.train(algorithm, workers, state, steps, **options))


# Learning without a lock.


@pytest.mark.parametrize(
    "kind", ["delayed", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("ending", "endless"))]
)
def test_lost_updates_and_torn_reads_do_not_break_it(kind):
    """Sixteen workers on a segment of one step, on two cores: hardly a write that nobody else is in the middle of."""
    algorithm = A3C(learning_rate=pa.Linear(3e-3, 3e-4), num_steps=1, discount=GAMMA, hidden_sizes=(16,))
    workers = Workers(lambda: Probe(kind), 16)
    *_, last = run_all(algorithm, workers, 16_000, chunk_iterations=4_000)
    learner = last.state.learner
    assert int(learner.progress.steps) > 0.9 * 16_000  # each missing one was lost
    values = np.asarray(learner.value(learner.encoder(Probe(kind).observe(jnp.arange(2)))))
    for value, wanted in zip(values, VALUE_PROBES[kind], strict=True):
        if wanted is not None:
            assert value == pytest.approx(wanted, rel=0.1, abs=0.1)


def test_chunks_end_where_they_should_whoever_is_faster():
    workers = Workers(lambda: Probe("endless"), 3)
    chunks = run_all(TINY, workers, 100, chunk_iterations=10)
    assert [chunk.steps for chunk in chunks] == [40, 80, 100]
    assert [int(chunk.state.iteration) for chunk in chunks] == [10, 20, 25]
    assert chunks[-1].metrics["episode/length"] == 5.0
    names = {"loss/policy", "loss/value", "policy/entropy", "value/explained_variance", "time/steps_per_second"}
    assert names < set(chunks[-1].metrics)


def test_every_worker_has_its_own_keys_and_its_own_episode():
    state = asynchronous.init(TINY, Workers(partial(envs.make, "jax:CartPole-v1"), 3), jax.random.key(0), 100)
    assert len(np.unique(np.asarray(state.actor.observation), axis=0)) == 3
    assert len(np.unique(np.asarray(jax.random.key_data(state.key)), axis=0)) == 3


@pytest.mark.slow
def test_processes_learn_too():
    """On the host: a time limit is no termination, and the learner that all processes wrote to comes home."""
    algorithm = A3C(learning_rate=pa.Linear(3e-3, 3e-4), num_steps=5, discount=GAMMA, hidden_sizes=(16,))
    workers = Workers(partial(envs.make, endless), 2)
    *_, last = run_all(algorithm, workers, 16_000)
    learner = last.state.learner
    value = learner.value(learner.encoder(Probe("endless").observe(jnp.arange(1))))[0]
    assert float(value) == pytest.approx(1.0 / (1.0 - GAMMA), rel=0.1)
    assert last.metrics["episode/return"] == 5.0
    assert 0.9 * 16_000 < int(learner.progress.steps) <= 16_000


def endless():
    return as_gymnasium(Probe("endless"))


# Stopping, saving, resuming.


def test_leaving_the_loop_ends_the_workers():
    import threading

    workers = Workers(lambda: Probe("endless"), 2)
    state = asynchronous.init(TINY, workers, jax.random.key(0), 1_000)
    chunks = asynchronous.train(TINY, workers, state, 1_000, chunk_iterations=10)
    next(chunks)
    assert sum(thread.name.startswith("parnassus-worker") for thread in threading.enumerate()) == 2
    chunks.close()
    assert not any(thread.name.startswith("parnassus-worker") for thread in threading.enumerate())


def test_parameters_statistics_and_counters_are_saved_and_resumed(tmp_path, capfd):
    algorithm = A3C(num_steps=4, hidden_sizes=(4,), normalize_observations=True, normalize_rewards=True)
    run = tiny_run(tmp_path / "run", algorithm=algorithm, steps=64)
    assert run.steps == 64 and "bits" not in capfd.readouterr().err
    loaded = pa.load(tmp_path / "run")
    assert same(loaded.state.learner, run.state.learner)
    assert int(loaded.state.iteration) == 16
    assert int(loaded.state.learner.progress.steps) > 0
    assert float(jax.tree.leaves(loaded.state.learner.optimizer)[0].min()) < 1.0  # g started at 1
    before = int(loaded.state.learner.progress.steps)
    resumed = pa.resume(tmp_path / "run", 128, quiet=True)
    assert resumed.steps == 128 and resumed.metrics["steps"].tolist() == list(range(16, 129, 16))
    assert before < int(resumed.state.learner.progress.steps) <= 128
    assert int(resumed.state.learner.progress.planned) == 128
    said = capfd.readouterr().err
    assert said.count("2 asynchronous workers go on from the saved parameters, statistics and counters") == 1
    assert json.loads((tmp_path / "run" / "config.json").read_text())["num_envs"] == 2
    assert len(resumed.evaluate(3).returns) == 3


@pytest.mark.reuses_keys
def test_a_lone_worker_resumes_to_the_bit(tmp_path):
    whole = tiny_run(tmp_path / "whole", algorithm=TINY, num_envs=1)
    tiny_run(tmp_path / "parts", algorithm=TINY, num_envs=1, target_return=-np.inf)
    assert pa.load(tmp_path / "parts").steps < 64
    resumed = pa.resume(tmp_path / "parts", target_return=np.inf, quiet=True)
    assert same(resumed.state.learner, whole.state.learner)


@pytest.mark.slow
@pytest.mark.parametrize("number, error", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_finishes_the_chunk_and_saves(number, error, tmp_path, capfd):
    """Processes are told by their parent alone."""
    parent = os.getpid()
    with pytest.raises(error):
        tiny_run(tmp_path / "run", partial(signalling, parent, number, tmp_path / "sent"), algorithm=TINY, steps=10_000)
    steps = pa.load(tmp_path / "run", env=well_behaved).steps
    assert 0 < steps < 10_000
    assert f"stopped at step {steps:,}; go on with: parnassus resume" in capfd.readouterr().err
    assert pa.resume(tmp_path / "run", steps + 32, env=well_behaved, quiet=True).steps == steps + 32


def signalling(parent, number, sent):
    """One signal, from the worker that comes there first: a second one would stop at once, without saving."""
    from tests.tiny_runs import Misbehaving

    def signal_once(step):
        if step == 20 and os.getpid() != parent:
            with contextlib.suppress(FileExistsError):
                sent.touch(exist_ok=False)
                os.kill(parent, number)

    return Misbehaving(signal_once)


# What goes wrong.


def test_a_reward_that_is_not_finite_stops_training():
    workers = Workers(lambda: Probe("endless"), 2)
    algorithm = A3C(num_steps=4, hidden_sizes=(4,), learning_rate=1e38)
    with pytest.raises(pa.TrainingFailed, match="is not finite"):
        run_all(algorithm, workers, 4_000)


def test_several_seeds_in_one_program_are_refused(tmp_path):
    with pytest.raises(pa.BadInput, match="A3C cannot train several seeds in one program"):
        pa.train(TINY, "jax:CartPole-v1", 64, seeds=range(2), num_envs=2, run=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
