"""Uniform experience replay: a ring of transitions on the device, part of the learner and so of every checkpoint.

Carried through `scan` (or donated by a host loop) it is updated in place: adding a step costs its own rows, whatever
the capacity.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from parnassus.types import Key, Transition, Tree, pytree


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
        positions = (self.added + jnp.arange(num_rows)) % self.capacity
        storage = jax.tree.map(lambda ring, x: ring.at[positions].set(x.astype(ring.dtype)), self.storage, rows)
        added = self.added + num_rows
        # Wrap between capacity and 2 * capacity: the position stays right, "full" stays true, nothing overflows.
        added = jnp.where(added >= 2 * self.capacity, added - self.capacity, added)
        return Replay(storage, added)

    def sample(self, key: Key, batch_size: int) -> Tree:
        """`batch_size` transitions drawn uniformly with replacement, leaves [batch_size, ...]."""
        rows = jax.random.randint(key, (batch_size,), 0, jnp.maximum(self.size, 1))
        return jax.tree.map(lambda ring: ring[rows], self.storage)
