"""The table model: what it saw is what it says, in the order in which it first saw it."""

import jax
import jax.numpy as jnp
import numpy as np

from parnassus.types import Transition
from parnassus.world_models.table import TableModel


def seen(*rows: list[tuple[int, int, float, int, bool]]) -> TableModel:
    """After these time steps, each with a row (s, a, r, s', over) for each environment."""
    model = TableModel.create(4, 2)
    for row in rows:
        s, a, r, after, over = (jnp.asarray(column) for column in zip(*row, strict=True))
        model = model.learn(Transition(s, a, r.astype(jnp.float32), after, over, jnp.zeros_like(over), {}))
    return model


def test_it_says_what_it_saw_last() -> None:
    model = seen([(0, 1, 1.0, 2, False)], [(2, 0, -1.0, 3, True)], [(0, 1, 5.0, 1, False)])
    step = model.step(jnp.array([0, 2]), jnp.array([1, 0]), jax.random.key(0))
    assert step.observation.tolist() == [1, 3] and step.reward.tolist() == [5.0, -1.0]
    assert step.terminated.tolist() == [False, True] and not step.truncated.any()
    assert (int(model.count), int(model.time)) == (2, 3)
    assert model.order[:2].tolist() == [1, 4]
    assert model.last_seen[0].tolist() == [-1, 2]


def test_what_was_never_seen_leads_nowhere() -> None:
    step = TableModel.create(4, 2).step(jnp.arange(4), jnp.zeros(4, int), jax.random.key(0))
    assert step.observation.tolist() == [0, 1, 2, 3] and not step.reward.any() and not step.terminated.any()


def test_environments_side_by_side_count_once() -> None:
    model = seen([(1, 1, 0.0, 0, False), (1, 1, 0.0, 0, False), (3, 0, 0.0, 0, False)], [(1, 1, 0.0, 0, False)] * 3)
    assert int(model.count) == 2 and model.order[:2].tolist() == [3, 6]
    np.testing.assert_array_equal(np.asarray(model.last_seen) >= 0, np.array([[0, 0], [0, 1], [0, 0], [1, 0]], bool))
