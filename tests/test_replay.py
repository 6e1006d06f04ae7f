"""The ring holds the newest transitions, samples them evenly, and is written in place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.replay import Replay


def fill(replay: Replay, first: int, count: int) -> Replay:
    """Add `count` transitions numbered from `first`, as a trajectory [count, 1]."""
    rows = {"x": jnp.arange(first, first + count)[:, None], "y": jnp.ones((count, 1, 2))}
    return replay.add(rows)


EXAMPLE = {"x": jnp.int32(0), "y": jnp.zeros(2)}


def test_the_newest_stay() -> None:
    replay = Replay.create(EXAMPLE, 5)
    assert (replay.capacity, replay.size) == (5, 0)
    replay = fill(replay, 1, 3)
    assert replay.size == 3
    replay = fill(replay, 4, 4)
    assert replay.size == 5
    assert sorted(replay.storage["x"].tolist()) == [3, 4, 5, 6, 7]


def test_it_stays_full_for_ever() -> None:
    replay = Replay.create(EXAMPLE, 4)
    for i in range(50):
        replay = fill(replay, i, 1)
        assert replay.size == min(i + 1, 4)
        assert sorted(replay.storage["x"].tolist()[: i + 1]) == list(range(max(0, i - 3), i + 1))
    assert replay.added < 8  # bounded: it never overflows


def test_trajectories_keep_their_rows_together() -> None:
    replay = Replay.create({"a": jnp.zeros(()), "b": jnp.zeros(())}, 6)
    a = jnp.arange(6.0).reshape(3, 2)
    replay = replay.add({"a": a, "b": 10 * a})
    np.testing.assert_array_equal(replay.storage["b"], 10 * replay.storage["a"])


def test_samples_are_uniform_over_what_is_there() -> None:
    replay = fill(Replay.create(EXAMPLE, 100), 0, 10)
    drawn = np.asarray(replay.sample(jax.random.key(0), 20_000)["x"])
    counts = np.bincount(drawn, minlength=100)
    assert counts[10:].sum() == 0
    chi_square = ((counts[:10] - 2000) ** 2 / 2000).sum()
    assert chi_square < 27.9  # 99.9 % of chi^2 with 9 degrees of freedom


def test_a_trajectory_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="a trajectory of 6 transitions does not fit a replay of 5"):
        fill(Replay.create(EXAMPLE, 5), 0, 6)


def test_adding_does_not_copy_the_ring() -> None:
    """The compiled program needs no temporary memory of the ring's size: the ring is updated where it is."""
    replay = Replay.create({"x": jnp.zeros(64)}, 100_000)
    row = {"x": jnp.ones((1, 1, 64))}
    add = jax.jit(lambda replay, row: replay.add(row), donate_argnums=0)
    memory = add.lower(replay, row).compile().memory_analysis()
    ring = 100_000 * 64 * 4
    assert memory.temp_size_in_bytes < ring / 100
    assert memory.alias_size_in_bytes >= ring

    def many(replay: Replay) -> Replay:
        return jax.lax.fori_loop(0, 10, lambda i, r: r.add(row), replay)

    memory = jax.jit(many, donate_argnums=0).lower(replay).compile().memory_analysis()
    assert memory.temp_size_in_bytes < ring / 100
