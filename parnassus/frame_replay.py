"""A replay of images that keeps every frame once, where a plain one keeps it 2 k times for stacks of k frames.

A stack is put together when it is drawn: its older frames are the newest ones of the rows before, and the successor of
a step is the observation of a row that follows. Whether rows really are neighbours is not assumed but compared, frame
by frame, when they are written. What could not be put together again exactly weighs nothing when drawn: the last step
before a time limit, whose successor gives way to the next episode's start; the newest step, whose successor is to come.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from parnassus.encoding import Leaf, layout
from parnassus.off_policy import Experience, example, look_ahead
from parnassus.types import BadInput, Key, Spec, Transition, Tree, pytree

_ThreeRows = tuple[Array, Array, Array]


@pytree
class FrameReplay:
    """The newest steps of N environments, at most `capacity`; row i + N holds what follows row i. Build with `create`.

    Of an observation, the leaves that are images are kept as their newest frame; the others whole, before and after the
    step.
    """

    num_envs: int  # N
    stack: int  # k: frames in an image
    axes: tuple[int | None, ...]  # of each leaf of an observation: along which its frames are stacked; None: no image
    frames: list[Array | None]  # of each leaf that is an image: [capacity, *frame]
    before: list[Array | None]  # of each other leaf: o_t, [capacity, ...]
    after: list[Array | None]  # of each other leaf: o_{t+m}, [capacity, ...]
    action: Tree  # [capacity, ...]
    reward: Float[Array, "C"]
    discount: Float[Array, "C"]
    span: Int[Array, "C"]  # m: steps from the observation to its successor
    history: Int[Array, "C"]  # how many older frames are those of the rows before; the rest of the k - 1 is padding
    blank: Bool[Array, "C"]  # padding is zero, not the oldest frame again
    whole: Bool[Array, "C"]  # the observation can be put together
    linked: Bool[Array, "C"]  # row i + N holds the observation that followed
    newest: Tree  # the last step's o_t and o_{t+1}: a pair, leaves [N, ...]
    added: Int[Array, ""]  # rows written so far, modulo 2 * capacity

    @classmethod
    def create(
        cls, example: Experience, capacity: int, num_envs: int, parts: tuple[Leaf, ...], stack: int
    ) -> "FrameReplay":
        """An empty ring for steps shaped like `example` (leaves [...], one step), whose observations have this layout.

        The capacity is rounded down to a multiple of N. Raises BadInput if nothing is left, or if an image is no stack
        of so many frames.
        """
        capacity -= capacity % num_envs
        if not capacity:
            raise BadInput(f"replay_size must be at least the number of environments, {num_envs}")
        axes = tuple((-3 if leaf.channels_first else -1) if leaf.kind == "image" else None for leaf in parts)
        leaves = [jnp.asarray(x) for x in jax.tree.leaves(example.observation)]
        for leaf, axis in zip(leaves, axes, strict=True):
            if axis is not None and leaf.shape[axis] % stack:
                raise BadInput(f"an image of shape {leaf.shape} is not a stack of {stack} frames")

        def ring(x: Array) -> Array:
            return jnp.zeros((capacity, *x.shape), x.dtype)

        def others() -> list[Array | None]:
            return [ring(x) if axis is None else None for x, axis in zip(leaves, axes, strict=True)]

        frames = [
            None if axis is None else ring(split(x, axis, stack)[-1]) for x, axis in zip(leaves, axes, strict=True)
        ]
        nothing = lambda: jax.tree.map(lambda x: jnp.zeros((num_envs, *x.shape), x.dtype), example.observation)  # noqa: E731
        numbers, flags = [jnp.zeros(capacity) for _ in range(2)], [jnp.zeros(capacity, bool) for _ in range(3)]
        counts = [jnp.zeros(capacity, jnp.int32) for _ in range(2)]
        action = jax.tree.map(ring, example.action)
        zero = jnp.zeros((), jnp.int32)
        newest = nothing(), nothing()
        return cls(num_envs, stack, axes, frames, others(), others(), action, *numbers, *counts, *flags, newest, zero)  # type: ignore[call-arg]

    @property
    def capacity(self) -> int:
        """How many steps fit."""
        return self.reward.shape[0]

    @property
    def size(self) -> Int[Array, ""]:
        """How many steps are there."""
        return jnp.minimum(self.added, self.capacity)

    def add(self, trajectory: Transition, discount: float | Array, n: int = 1) -> "FrameReplay":
        """Write a trajectory's n-step transitions, leaves [T, N, ...]; the oldest rows give way.

        Raises ValueError (when traced) for a trajectory longer than the ring.
        """
        num_steps, num_envs = trajectory.reward.shape
        num_rows = num_steps * num_envs
        if num_rows > self.capacity:
            raise ValueError(f"a trajectory of {num_rows} transitions does not fit a replay of {self.capacity}")
        reward, factor, last = look_ahead(trajectory, discount, n)
        now, following = jax.tree.leaves(trajectory.observation), jax.tree.leaves(trajectory.next_observation)
        older, expected = (
            [jnp.concatenate([x[None], y[:-1]]) for x, y in zip(jax.tree.leaves(newest), leaves, strict=True)]
            for newest, leaves in zip(self.newest, (now, following), strict=True)
        )
        follows = self._images_agree(expected, now, lambda frames: frames, lambda frames: frames)
        shifted = self._images_agree(older, now, lambda frames: frames[:, :, 1:], lambda frames: frames[:, :, :-1])
        rows = (self.added + jnp.arange(num_rows)) % self.capacity
        rows_before = (rows - num_envs) % self.capacity
        history, blank, whole = self._how_to_stack(now, shifted, rows_before[:num_envs])

        def put(ring: Array, x: Num[Array, "T N ..."] | Bool[Array, "T N ..."]) -> Array:
            return ring.at[rows].set(x.reshape(num_rows, *x.shape[2:]).astype(ring.dtype))

        def put_others(rings: list[Array | None], leaves: list[Array]) -> list[Array | None]:
            return [None if ring is None else put(ring, x) for ring, x in zip(rings, leaves, strict=True)]

        frames = [
            None if ring is None or axis is None else put(ring, split(x, axis, self.stack)[:, :, -1])
            for ring, x, axis in zip(self.frames, now, self.axes, strict=True)
        ]
        successor = [x[last, jnp.arange(num_envs)] for x in following]
        span = last - jnp.arange(num_steps)[:, None] + 1
        linked = self.linked.at[rows].set(False).at[rows_before].set(follows.ravel())
        added = self.added + num_rows
        return FrameReplay(
            num_envs,
            self.stack,
            self.axes,
            frames,
            put_others(self.before, now),
            put_others(self.after, successor),
            jax.tree.map(put, self.action, trajectory.action),
            put(self.reward, reward),
            put(self.discount, factor),
            put(self.span, span),
            put(self.history, history),
            put(self.blank, blank),
            put(self.whole, whole),
            linked,
            jax.tree.map(lambda x: x[-1], (trajectory.observation, trajectory.next_observation)),
            jnp.where(added >= 2 * self.capacity, added - self.capacity, added),
        )

    def next_rows(self, num_rows: int) -> Int[Array, "R"]:
        """The rows that the next `num_rows` steps complete: they hold the successors of the steps one earlier."""
        return (self.added - self.num_envs + jnp.arange(num_rows)) % self.capacity

    def draw(self, key: Key, batch_size: int) -> Int[Array, "B"]:
        """Rows, drawn uniformly with replacement."""
        return jax.random.randint(key, (batch_size,), 0, jnp.maximum(self.size, 1))

    def usable(self, rows: Int[Array, "B"]) -> Bool[Array, "B"]:
        """Whether the step and its successor can be put together from what is there."""
        successor, last = self._later(rows, self.span[rows]), self._later(rows, self.span[rows] - 1)
        is_there = self._age(rows) - self.span[rows] * self.num_envs >= 0
        has_successor = is_there & self.linked[last] & self._can_stack(successor)
        return self._can_stack(rows) & (has_successor | (self.discount[rows] == 0.0))

    def __getitem__(self, rows: Int[Array, "B"]) -> Experience:
        """The steps in these rows, leaves [B, ...]; where they are not `usable`, some frames are wrong."""
        successor = jnp.where(self.discount[rows] == 0.0, rows, self._later(rows, self.span[rows]))
        structure = jax.tree.structure(self.newest[0])
        now, following = (
            jax.tree.unflatten(structure, self._observations(at, [None if x is None else x[rows] for x in others]))
            for at, others in ((rows, self.before), (successor, self.after))
        )
        action = jax.tree.map(lambda ring: ring[rows], self.action)
        return Experience(now, action, self.reward[rows], following, self.discount[rows])

    def _observations(self, rows: Int[Array, "B"], others: list[Array | None]) -> list[Array | None]:
        """The leaves of these rows' observations."""
        back = jnp.arange(self.stack - 1, -1, -1)[:, None]  # the oldest frame first
        at = (rows[None] - jnp.minimum(back, self.history[rows][None]) * self.num_envs) % self.capacity  # [k, B]
        is_blank = self.blank[rows][None] & (back > self.history[rows][None])
        leaves: list[Array | None] = []
        for ring, other, axis in zip(self.frames, others, self.axes, strict=True):
            if ring is None or axis is None:
                leaves.append(other)
            else:
                frames = jnp.where(is_blank.reshape(*is_blank.shape, *(1,) * (ring.ndim - 1)), 0, ring[at])
                leaves.append(join(jnp.moveaxis(frames.astype(ring.dtype), 0, 1), axis))
        return leaves

    def _how_to_stack(self, now: list[Array], shifted: Bool[Array, "T N"], before: Int[Array, "N"]) -> _ThreeRows:
        """`history`, `blank` and `whole` of new rows [T, N]; `before` are the rows that the first of them follow."""
        repeats = self._images_agree(now, now, lambda frames: frames[:, :, :-1], lambda frames: frames[:, :, -1:])
        black = self._images_agree(now, now, lambda frames: frames[:, :, :-1], lambda frames: 0 * frames[:, :, -1:])

        def row(previous: _ThreeRows, new: _ThreeRows) -> tuple[_ThreeRows, _ThreeRows]:
            history, blank, whole = previous
            shifted, repeats, black = new
            longer = jnp.minimum(history + 1, self.stack - 1)
            goes_on = shifted & (whole | (longer == self.stack - 1))
            starts = ~goes_on & (repeats | black)
            history = jnp.where(shifted & ~starts, longer, 0)
            row = history, jnp.where(goes_on, blank, black), goes_on | starts
            return row, row

        first = self.history[before], self.blank[before], self.whole[before]
        return jax.lax.scan(row, first, (shifted, repeats, black))[1]

    def _images_agree(self, old: list[Array], new: list[Array], of_old: object, of_new: object) -> Bool[Array, "T N"]:
        """Whether all images [T, N, ...] agree in the frames [T, N, k, ...] that `of_old` and `of_new` take of them."""
        agree = jnp.ones(new[0].shape[:2], bool)
        for x, y, axis in zip(old, new, self.axes, strict=True):
            if axis is not None:
                same = of_old(split(x, axis, self.stack)) == of_new(split(y, axis, self.stack))  # type: ignore[operator]
                agree &= same.all(tuple(range(2, same.ndim)))
        return agree

    def _later(self, rows: Int[Array, "B"], steps: Int[Array, "B"]) -> Int[Array, "B"]:
        return (rows + steps * self.num_envs) % self.capacity

    def _age(self, rows: Int[Array, "B"]) -> Int[Array, "B"]:
        """How many rows were written after these."""
        return (self.added - 1 - rows) % self.capacity

    def _can_stack(self, rows: Int[Array, "B"]) -> Bool[Array, "B"]:
        """Whether these rows' stacks, and the rows they need, are there."""
        oldest = self._age(rows) + self.history[rows] * self.num_envs
        return self.whole[rows] & (oldest < self.size)


def create_frame_replay(spec: Spec, capacity: int, stack: int) -> FrameReplay:
    """An empty replay for `spec`, whose images are stacks of so many frames. Raises BadInput as `create` does."""
    one = jax.tree.map(lambda x: x[0], example(spec))
    return FrameReplay.create(one, capacity, spec.num_envs, layout(spec.observation_space), stack)


def split(image: Num[Array, "*batch a b c"], axis: int, stack: int) -> Num[Array, "*batch k x y z"]:
    """An image as its frames, the newest last: [*batch, k, *frame]; `axis` is -1 (channels last) or -3 (first)."""
    *batch, a, b, c = image.shape
    if axis == -3:
        return image.reshape(*batch, stack, a // stack, b, c)
    return jnp.moveaxis(image.reshape(*batch, a, b, stack, c // stack), -2, -4)


def join(frames: Num[Array, "*batch k x y z"], axis: int) -> Num[Array, "*batch a b c"]:
    """The image of these frames: the inverse of `split`."""
    *batch, k, x, y, z = frames.shape
    if axis == -3:
        return frames.reshape(*batch, k * x, y, z)
    return jnp.moveaxis(frames, -4, -2).reshape(*batch, x, y, k * z)
