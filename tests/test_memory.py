"""A learner that does not fit is refused, with the numbers, before it is made."""

import jax
import pytest

from parnassus import memory, training
from parnassus.algorithms.sac import SAC
from parnassus.collect import ScanCollector
from parnassus.types import BadInput
from tests.probe_envs import Probe


def test_a_replay_that_does_not_fit_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    collector, algorithm = ScanCollector(Probe("endless", continuous=True), 4), SAC(replay_size=100_000)
    monkeypatch.setattr(memory, "free_memory", lambda: 2**24)  # 100,000 steps of five numbers take an eighth of it
    training.init(algorithm, collector, jax.random.key(0), 64)
    with pytest.raises(BadInput, match=r"\(replay/storage/.*, but 0.0 GiB are free; a smaller replay_size"):
        training.init(algorithm, collector, jax.random.split(jax.random.key(0), 16), 64)
    with pytest.raises(BadInput, match=r"needs \d{2}.\d GiB of memory"):
        training.init(SAC(replay_size=2**31 - 1), collector, jax.random.key(0), 64)


def test_free_memory_is_told() -> None:
    free = memory.free_memory()
    assert free is None or 2**20 < free < 2**50
