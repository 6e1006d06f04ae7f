"""Frame replay against naive storage: the same observations, or none; memory; what cannot be put together."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.encoding import Leaf
from parnassus.frame_replay import FrameReplay, join, split
from parnassus.off_policy import Experience, experience
from parnassus.types import BadInput, Transition

N, GAMMA = 3, 0.9


class Film:
    """N environments whose images are stacks of random frames, in NumPy; episodes end at random, for either reason.

    `padding` says what an episode's first stack holds beside its first frame. Observations: image, number of the step.
    """

    def __init__(self, stack: int, axis: int, channels: int = 1, padding: str = "repeat", size: int = 5) -> None:
        self.rng, self.stack, self.axis, self.padding = np.random.default_rng(0), stack, axis, padding
        self.shape = (size, size + 1, channels) if axis == -1 else (channels, size, size + 1)
        self.number = 0
        self.frames = [self.start() for _ in range(N)]

    def frame(self) -> np.ndarray:
        return self.rng.integers(1, 255, self.shape, np.uint8)

    def start(self) -> list[np.ndarray]:
        first = self.frame()
        older = {"repeat": lambda: first, "blank": lambda: 0 * first, "noise": self.frame}[self.padding]
        return [older() for _ in range(self.stack - 1)] + [first]

    def observe(self, frames: list[list[np.ndarray]]) -> dict[str, np.ndarray]:
        image = np.stack([np.concatenate(f, self.axis) for f in frames])
        return {"image": image, "number": np.full((N, 2), self.number, np.float32)}

    def play(self, num_steps: int, ends: float = 0.1) -> Transition:
        """A trajectory [T, N, ...], with a reset before it in every third call."""
        rows = []
        for _ in range(num_steps):
            before = self.observe(self.frames)
            self.number += 1
            self.frames = [[*f[1:], self.frame()] for f in self.frames]
            after = self.observe(self.frames)
            terminated, truncated = self.rng.random(N) < ends, self.rng.random(N) < ends
            self.frames = [
                self.start() if end else f for f, end in zip(self.frames, terminated | truncated, strict=True)
            ]
            action, reward = self.rng.integers(0, 4, N), self.rng.normal(size=N).astype(np.float32)
            rows.append(Transition(before, action, reward, after, terminated, truncated, {}))
        return jax.tree.map(lambda *x: jnp.stack(x), *rows)

    def reset(self) -> None:
        self.frames = [self.start() for _ in range(N)]


def create(film: Film, capacity: int) -> FrameReplay:
    one = jax.tree.map(lambda x: jnp.asarray(x[0]), film.observe(film.frames))
    example = Experience(one, jnp.int32(0), jnp.float32(0), one, jnp.float32(0))
    layout = (Leaf("image", one["image"].shape, channels_first=film.axis == -3), Leaf("vector", (2,)))
    return FrameReplay.create(example, capacity, N, layout, film.stack)


def rows_of(data: Experience) -> list[Any]:
    """The transitions of a trajectory, one by one, in the order of a ring."""
    flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), data)
    return [jax.tree.map(lambda x, i=i: x[i], flat) for i in range(len(flat.reward))]


@pytest.mark.parametrize(("stack", "axis", "channels"), [(1, -1, 3), (4, -1, 1), (4, -3, 1), (2, -1, 3), (3, -3, 2)])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("padding", ["repeat", "blank", "noise"])
def test_the_same_stacks_as_naive_storage(stack: int, axis: int, channels: int, n: int, padding: str) -> None:
    """Every row that is usable gives back the very transition."""
    film = Film(stack, axis, channels, padding)
    replay, capacity = create(film, 61), 60
    assert replay.capacity == capacity
    add, everything = jax.jit(FrameReplay.add, static_argnames="n"), []
    for call in range(9):
        if call % 3 == 2:
            film.reset()  # as a host collector does at a chunk's start: no transition tells of it
        data = film.play(7)
        replay = add(replay, data, GAMMA, n=n)
        everything += rows_of(experience(data, GAMMA, n))
        rows = jnp.arange(capacity)
        usable, found = np.asarray(replay.usable(rows)), jax.tree.map(np.asarray, replay[rows])
        there = len(everything[-capacity:])
        assert not usable[there:].any()
        for number in range(len(everything) - there, len(everything)):
            row, wanted = number % capacity, everything[number]
            if not usable[row]:
                continue
            got = jax.tree.map(lambda x, row=row: x[row], found)
            terminal = wanted.discount == 0.0
            for name in ("observation", "action", "reward", "discount"):
                jax.tree.map(np.testing.assert_array_equal, getattr(got, name), getattr(wanted, name))
            if not terminal:  # after which there is nothing to know
                jax.tree.map(np.testing.assert_array_equal, got.next_observation, wanted.next_observation)
    assert usable.mean() > (0.1 if padding == "noise" and stack > 1 else 0.4)


def test_only_what_must_be_is_unusable() -> None:
    """Without ends or resets: all but the newest steps, and but the oldest, whose older frames are gone."""
    film = Film(4, -1)
    replay = create(film, 60)
    for _ in range(5):
        replay = replay.add(film.play(8, ends=0.0), GAMMA)
    usable = np.asarray(replay.usable((replay.added + jnp.arange(60)) % 60)).reshape(20, N)  # the oldest first
    assert (usable == ~np.isin(np.arange(20), [0, 1, 2, 19])[:, None]).all()


def test_a_time_limit_costs_the_step_before_it_and_a_termination_none() -> None:
    film = Film(2, -1)
    replay = create(film, 300)
    played = [film.play(10) for _ in range(4)]
    for data in played:
        replay = replay.add(data, GAMMA)
    lost = np.concatenate([np.asarray(d.truncated & ~d.terminated).ravel() for d in played])
    assert 0 < lost.sum() < 30
    wanted = ~lost
    terminal = np.asarray(played[-1].terminated[-1])
    wanted[-N:] = terminal  # the newest
    np.testing.assert_array_equal(replay.usable(jnp.arange(120)), wanted)


def test_rows_that_new_steps_complete() -> None:
    """`next_rows` lags a step: before the successor is there, nothing could be learned from them."""
    film = Film(2, -1)
    replay = create(film, 300).add(film.play(4, ends=0.0), GAMMA)
    rows = replay.next_rows(12)
    assert rows.tolist() == list(range(9, 21))
    replay = replay.add(film.play(4, ends=0.0), GAMMA)
    assert replay.usable(rows).all()
    assert not replay.usable(jnp.arange(21, 24)).any()


def test_memory_is_a_quarter_of_naive_storage() -> None:
    """Stacks of four 84x84 frames: one frame in place of eight."""
    shape = jax.ShapeDtypeStruct
    image = shape((84, 84, 4), jnp.uint8)
    one = Experience(image, shape((), jnp.int32), shape((), jnp.float32), image, shape((), jnp.float32))
    naive = sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(one)) * 1_000_000

    def create() -> FrameReplay:
        example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), one)
        return FrameReplay.create(example, 1_000_000, 8, (Leaf("image", (84, 84, 4)),), 4)

    size = sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(create)))
    assert size < 0.3 * naive
    assert size < 8 * 2**30


@pytest.mark.parametrize("axis", [-1, -3])
def test_split_and_join(axis: int) -> None:
    film = Film(4, axis, channels=2)
    image = film.observe(film.frames)["image"]
    frames = split(jnp.asarray(image), axis, 4)
    np.testing.assert_array_equal(frames[0, -1], film.frames[0][-1])
    np.testing.assert_array_equal(join(frames, axis), image)


def test_what_is_refused() -> None:
    film = Film(3, -1)
    with pytest.raises(BadInput, match="replay_size must be at least the number of environments, 3"):
        create(film, 2)
    film.stack = 2
    with pytest.raises(BadInput, match=r"an image of shape \(5, 6, 3\) is not a stack of 2 frames"):
        create(film, 60)
    film.stack = 3
    with pytest.raises(ValueError, match="a trajectory of 18 transitions does not fit a replay of 15"):
        create(film, 15).add(film.play(6), GAMMA)
