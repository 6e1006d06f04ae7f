"""What one worker does, without a crew."""

import jax
import numpy as np
import pytest

from parnassus import training
from parnassus.collect import HostCollector, collector_for
from parnassus.distributed.worker import work
from parnassus.envs import make
from parnassus.envs.wrap import as_gymnasium
from tests.distributed.shared_learners import TINY, same, shared_learner
from tests.probe_envs import Probe


def on_host():
    return as_gymnasium(Probe("constant"))


@pytest.fixture(params=["traced", "on the host"])
def collector(request):
    made = collector_for(Probe("constant") if request.param == "traced" else make(on_host, 1), 1)
    yield made
    if isinstance(made, HostCollector):
        made.close()


def start(collector):
    return collector.init(TINY, jax.random.key(1)), jax.random.key(2)


def test_a_worker_does_the_segments_that_are_left(collector):
    learner, shared = shared_learner()
    take = iter([True, True, False]).__next__
    done = work(training.arrays(TINY), collector, shared, take, *start(collector))
    assert {"loss/policy", "loss/value", "policy/entropy", "ended", "finite/reward"} <= set(done.rows)
    assert all(row.shape == (2,) and row.dtype == np.float64 for row in done.rows.values())
    after = shared.load()
    assert int(after.progress.steps) == 2 * TINY.num_steps
    assert not same(after.networks, learner.networks) and not same(after.optimizer, learner.optimizer)
    assert not np.array_equal(jax.random.key_data(done.key), jax.random.key_data(jax.random.key(2)))


def test_a_worker_that_comes_too_late_leaves_the_learner_alone(collector):
    learner, shared = shared_learner()
    done = work(training.arrays(TINY), collector, shared, lambda: False, *start(collector))
    assert done.rows == {} and same(shared.load(), learner)
