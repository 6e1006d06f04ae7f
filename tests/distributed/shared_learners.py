"""A small learner in shared memory, for the tests of workers."""

import jax
import numpy as np

from parnassus.algorithms.a3c import A3C
from parnassus.distributed.shared import Layout, Shared
from parnassus.types import Spec
from tests.probe_envs import Probe

TINY = A3C(num_steps=4, hidden_sizes=(4,))


def probe_spec():
    probe = Probe("constant")
    return Spec(probe.observation_space, probe.action_space, 1)


def shared_learner(algorithm=TINY):
    learner = algorithm.init(jax.random.key(0), probe_spec())
    layout = Layout.of(algorithm, learner)
    shared = Shared(layout, np.zeros(layout.size, np.int32))
    shared.store(learner)
    return learner, shared


def same(a, b):
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)
