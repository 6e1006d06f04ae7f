"""Experience replay: a ring of transitions on the device, part of the learner and so of every checkpoint.

Carried through `scan` (or donated by a host loop) it is updated in place: adding a step costs its own rows, whatever
the capacity. Which rows are drawn is the business of `Uniform` and `Prioritized`.
"""

import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.types import Fraction, Key, NonNegative, Transition, Tree, pytree


@pytree
class Replay:
    """The newest `capacity` transitions; `storage` leaves are [capacity, ...]."""

    storage: Tree
    added: Int[Array, ""]  # rows written so far, modulo 2 * capacity: the next position, and whether the ring is full

    @classmethod
    def create(cls, example: Tree, capacity: int) -> "Replay":
        """An empty ring for transitions shaped like `example` (leaves [...], one transition)."""
        storage = jax.tree.map(lambda x: jnp.zeros((capacity, *jnp.shape(x)), jnp.result_type(x)), example)
        return cls(storage, jnp.zeros((), jnp.int32))

    @property
    def capacity(self) -> int:
        """How many transitions fit."""
        return jax.tree.leaves(self.storage)[0].shape[0]

    @property
    def size(self) -> Int[Array, ""]:
        """How many transitions are there."""
        return jnp.minimum(self.added, self.capacity)

    def add(self, trajectory: Transition | Tree) -> "Replay":
        """Write a trajectory, leaves [T, N, ...]; the oldest rows give way.

        Raises ValueError (when traced) for a trajectory longer than the ring.
        """
        rows = jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), trajectory)
        num_rows = jax.tree.leaves(rows)[0].shape[0]
        if num_rows > self.capacity:
            raise ValueError(f"a trajectory of {num_rows} transitions does not fit a replay of {self.capacity}")
        positions = self.next_rows(num_rows)
        storage = jax.tree.map(lambda ring, x: ring.at[positions].set(x.astype(ring.dtype)), self.storage, rows)
        added = self.added + num_rows
        # Wrap between capacity and 2 * capacity: the position stays right, "full" stays true, nothing overflows.
        added = jnp.where(added >= 2 * self.capacity, added - self.capacity, added)
        return Replay(storage, added)

    def next_rows(self, num_rows: int) -> Int[Array, "R"]:
        """Where the next `num_rows` transitions will be written."""
        return (self.added + jnp.arange(num_rows)) % self.capacity

    def draw(self, key: Key, batch_size: int) -> Int[Array, "B"]:
        """Rows, drawn uniformly with replacement."""
        return jax.random.randint(key, (batch_size,), 0, jnp.maximum(self.size, 1))

    def __getitem__(self, rows: Int[Array, "B"]) -> Tree:
        """The transitions in these rows, leaves [B, ...]."""
        return jax.tree.map(lambda ring: ring[rows], self.storage)

    def sample(self, key: Key, batch_size: int) -> Tree:
        """`batch_size` transitions drawn uniformly with replacement, leaves [batch_size, ...]."""
        return self[self.draw(key, batch_size)]


@pytree
class Priorities:
    """The priorities of a replay's rows as a binary tree of sums: drawing and changing B of them costs B log(capacity).

    `sums[1]` is the sum of all, `sums[i]` that of its children `sums[2 i]` and `sums[2 i + 1]`; row r is the leaf
    `sums[len(sums) / 2 + r]`. Parents are computed from their children anew, so errors do not add up.
    """

    sums: Float[Array, "2C"]  # C: the capacity, rounded up to a power of two
    largest: Float[Array, ""]  # so far: what new rows are given

    @classmethod
    def create(cls, capacity: int) -> "Priorities":
        """No row has a priority yet."""
        return cls(jnp.zeros(2 * 2 ** math.ceil(math.log2(capacity))), jnp.ones(()))

    @property
    def depth(self) -> int:
        """Steps from the root to a leaf."""
        return int(math.log2(len(self.sums))) - 1

    def put(self, rows: Int[Array, "B"], priorities: Float[Array, "B"]) -> "Priorities":
        """These rows with these priorities; a row given twice must have the same one twice."""
        node = len(self.sums) // 2 + rows
        start = node, self.sums.at[node].set(priorities)

        def one_level_up(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            node, sums = carry
            parent = node // 2
            return parent, sums.at[parent].set(sums[2 * parent] + sums[2 * parent + 1])

        _, sums = jax.lax.fori_loop(0, self.depth, one_level_up, start)
        return Priorities(sums, jnp.maximum(self.largest, priorities.max()))

    def draw(self, key: Key, batch_size: int) -> tuple[Int[Array, "B"], Float[Array, "B"]]:
        """Rows with probability in proportion to their priorities, one from each of `batch_size` equal shares of the
        total (Schaul et al. 2016, appendix B.2.1), and those probabilities."""
        shares = (jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))) / batch_size

        def one_level_down(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            node, rest = carry
            left, right = self.sums[2 * node], self.sums[2 * node + 1]
            go_right = (rest >= left) & (right > 0.0)  # rounding must not lead to a row without priority
            return 2 * node + go_right, jnp.where(go_right, rest - left, rest)

        start = jnp.ones(batch_size, jnp.int32), shares * self.sums[1]
        leaf, _ = jax.lax.fori_loop(0, self.depth, one_level_down, start)
        return leaf - len(self.sums) // 2, self.sums[leaf] / self.sums[1]


@runtime_checkable
class Rows(Protocol):
    """What is drawn from: a `Replay`, or one of frames."""

    @property
    def size(self) -> Int[Array, ""]: ...

    def draw(self, key: Key, batch_size: int) -> Int[Array, "B"]: ...


@pytree
class Uniform:
    """Every transition of the replay is as likely as any other; all weigh the same."""

    def start(self, capacity: int) -> Any:
        """Nothing to remember."""

    def added(self, state: Any, rows: Int[Array, "R"]) -> Any:
        """New transitions are in these rows."""

    def draw(
        self, state: Any, replay: Rows, key: Key, batch_size: int, progress: Progress
    ) -> tuple[Int[Array, "B"], Float[Array, "B"]]:
        """Rows, and the weights of their losses."""
        return replay.draw(key, batch_size), jnp.ones(batch_size)

    def learned(self, state: Any, rows: Int[Array, "B"], error: Float[Array, "B"]) -> Any:
        """The temporal-difference errors of these rows are known."""


@pytree
class Prioritized:
    """In proportion to |TD error|^alpha, with importance weights (Schaul et al. 2016, arXiv 1511.05952, Algorithm 1).

    P(i) = p_i^alpha / sum_k p_k^alpha with p_i = |delta_i| + epsilon; new transitions have the largest priority so far.
    The weights (size P(i))^-beta undo what the choice does to the expectation, the more the closer beta is to 1; they
    are divided by the largest of the minibatch.
    """

    exponent: NonNegative = 0.6  # alpha: 0 is uniform
    correction: Fraction | Linear = Linear(0.4, 1.0)  # beta
    epsilon: NonNegative = 1e-6  # so that no transition is forgotten

    def start(self, capacity: int) -> Any:
        """No priorities yet."""
        return Priorities.create(capacity)

    def added(self, state: Any, rows: Int[Array, "R"]) -> Any:
        """New transitions are in these rows: surely drawn soon, since nothing is known of their errors."""
        return state.put(rows, jnp.full(rows.shape, state.largest))

    def draw(
        self, state: Any, replay: Rows, key: Key, batch_size: int, progress: Progress
    ) -> tuple[Int[Array, "B"], Float[Array, "B"]]:
        """Rows, and the weights of their losses."""
        rows, probability = state.draw(key, batch_size)
        weight = (replay.size * probability) ** -at(self.correction, progress)
        return rows, weight / weight.max()

    def learned(self, state: Any, rows: Int[Array, "B"], error: Float[Array, "B"]) -> Any:
        """The temporal-difference errors of these rows are known."""
        return state.put(rows, (jnp.abs(error) + self.epsilon) ** self.exponent)
