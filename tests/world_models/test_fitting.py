"""Which rows are held out, what a bootstrap is, when fitting stops and what is kept then."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.replay import Replay
from parnassus.world_models.fitting import Bootstrap, Fitting, held_out_row, training_row


@pytest.mark.parametrize("holdout", [2, 5, 10])
def test_every_row_is_trained_on_or_held_out(holdout: int) -> None:
    blocks = 40
    out = held_out_row(jnp.arange(blocks), holdout)
    trained = training_row(jnp.arange(blocks * (holdout - 1)), holdout)
    assert sorted([*out.tolist(), *trained.tolist()]) == list(range(blocks * holdout))
    assert (out // holdout).tolist() == list(range(blocks))  # one of each block
    assert len(set((out % holdout).tolist())) == holdout  # and not always the same


def test_held_out_rows_are_read_evenly() -> None:
    replay = Replay.create(jnp.zeros(()), 100).add(jnp.arange(50.0)[:, None])
    few = Fitting(holdout_size=30).held_out(replay)  # 10 are held out
    values, counts = np.unique(few, return_counts=True)
    assert values.tolist() == held_out_row(jnp.arange(10), 5).tolist() and (counts == 3).all()
    assert len(np.unique(Fitting(holdout_size=4).held_out(replay))) == 4


def test_members_see_different_bootstraps() -> None:
    n = 2_000
    bootstrap = Bootstrap(jax.random.split(jax.random.key(0), 3), jnp.int32(n))
    positions = jnp.broadcast_to(jnp.arange(n), (3, n))
    rows = np.asarray(bootstrap.rows(positions))
    assert rows.min() >= 0 and rows.max() < n
    seen = [set(row.tolist()) for row in rows]
    for share in [len(one) / n for one in seen]:
        assert share == pytest.approx(1 - np.exp(-1), abs=0.03)  # of n rows, drawn n times with replacement
    assert len(seen[0] & seen[1]) / n == pytest.approx((1 - np.exp(-1)) ** 2, abs=0.03)  # independently
    np.testing.assert_array_equal(rows, bootstrap.rows(positions))  # the same ones when asked again
    drawn = bootstrap.draw(jax.random.key(1), 5_000)
    assert all(set(row.tolist()) <= one for row, one in zip(np.asarray(drawn), seen, strict=True))


def test_a_single_network_has_every_row_once() -> None:
    bootstrap = Bootstrap(jax.random.split(jax.random.key(0), 1), jnp.int32(50))
    assert bootstrap.rows(jnp.arange(50)[None])[0].tolist() == list(range(50))


def fit(fitting: Fitting, start: Any, loss: Any, score: Any, num_rows: int = 50) -> Any:
    """Of networks that are one number each, on a replay of the numbers 0, 1, ..."""
    replay = Replay.create(jnp.zeros(()), 64).add(jnp.arange(float(num_rows))[:, None])
    return fitting(start, fitting.init(start), loss, score, replay, jax.random.key(0))


def test_stops_by_itself_and_keeps_the_best() -> None:
    """Each number climbs by its learning rate a step; the score is lowest at 1 and at 2, and then rises."""
    fitting = Fitting(0.1, 0.0, minibatch_size=4, steps_per_look=1, patience=3, max_looks=100, tolerance=1e-3)
    best = jnp.array([1.0, 2.0])
    start = {"x": jnp.zeros(2), "best": best}
    climb = lambda network, batch: -network["x"] + 0.0 * batch.sum()  # noqa: E731
    score = lambda network, batch: (network["x"] - network["best"]) ** 2  # noqa: E731
    network, optimizer, lowest, looks = fit(fitting, start, climb, score)
    np.testing.assert_allclose(network["x"], best, atol=1e-4)
    np.testing.assert_allclose(lowest, 0.0, atol=1e-8)
    assert int(looks) == 20 + 3
    counts = next(leaf for leaf in jax.tree.leaves(optimizer) if leaf.dtype == jnp.int32)
    assert counts.tolist() == [10, 20]  # Adam's, too, is as it was then


def test_one_that_has_stopped_stays_so() -> None:
    """Its score falls again later, while the other still learns."""
    fitting = Fitting(0.1, 0.0, minibatch_size=4, steps_per_look=1, patience=3, max_looks=30, tolerance=1e-3)
    start = {"x": jnp.zeros(2), "hill": jnp.array([1.0, 0.0])}
    climb = lambda network, batch: -network["x"] + 0.0 * batch.sum()  # noqa: E731

    def score(network: Any, batch: Any) -> Any:
        x = network["x"]
        return jnp.where((network["hill"] > 0) & (x < 0.95), x, -x)

    network, _, _, looks = fit(fitting, start, climb, score)
    np.testing.assert_allclose(network["x"], [0.0, 3.0], atol=1e-4)
    assert int(looks) == 30


def test_a_held_out_row_is_never_trained_on() -> None:
    """The gradient is of what a row holds: networks that start at the trained rows' only value do not move."""
    out = held_out_row(jnp.arange(10), 5)
    rows = jnp.zeros(50).at[out].set(1_000.0)
    replay = Replay.create(jnp.zeros(()), 64).add(rows[:, None])
    fitting = Fitting(0.1, 0.0, minibatch_size=16, steps_per_look=20, max_looks=2)
    distance = lambda network, batch: ((network - batch) ** 2).mean()  # noqa: E731
    start = jnp.zeros(3)
    network, _, lowest, _ = fitting(start, fitting.init(start), distance, distance, replay, jax.random.key(0))
    np.testing.assert_array_equal(network, 0.0)
    np.testing.assert_allclose(lowest, 1e6)


def test_of_too_few_rows_nothing_is_learned() -> None:
    fitting = Fitting(0.1, minibatch_size=4)
    loss = lambda network, batch: ((network - batch) ** 2).mean()  # noqa: E731
    network, _, _, looks = fit(fitting, jnp.zeros(2), loss, loss, num_rows=4)
    assert int(looks) == 0 and network.tolist() == [0.0, 0.0]
    network, _, _, looks = fit(dataclasses.replace(fitting, holdout=2), jnp.zeros(2), loss, loss, num_rows=4)
    assert int(looks) > 0 and (network != 0.0).all()


def test_decay_is_of_weights() -> None:
    """Not of biases, nor of anything else of one dimension; the gradient is decay times the weights."""
    fitting = Fitting(0.1, weight_decay=0.5)
    parameters = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.ones(2)}
    decay = fitting.optimizer().update(
        jax.tree.map(jnp.zeros_like, parameters), fitting.optimizer().init(parameters), parameters
    )
    assert (decay[0]["kernel"] < 0).all() and (decay[0]["bias"] == 0).all()
    first_moment = decay[1][1][0].mu  # 1 - beta_1 of the gradient
    np.testing.assert_allclose(first_moment["kernel"], 0.1 * 0.5 * 3.0, rtol=1e-5)
