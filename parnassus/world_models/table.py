"""A table as a world model: what followed when an action was last taken in a state (Sutton 1990).

Its `step` has the signature of an environment's: to a planner, imagining is the same as acting.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from parnassus.types import Key, Step, Transition


class TableModel(NamedTuple):
    """Of a world that does the same each time; of another, the last that it did."""

    next_state: Int[Array, "S A"]
    reward: Float[Array, "S A"]
    terminated: Bool[Array, "S A"]
    last_seen: Int[Array, "S A"]  # when the action was last taken in the state, in steps; -1 for never
    order: Int[Array, "SA"]  # the numbers s * A + a of what was seen, in the order in which it was first seen
    count: Int[Array, ""]  # type: ignore[assignment]  # (of tuple) how many there are
    time: Int[Array, ""]  # steps that were learned from

    @classmethod
    def create(cls, num_states: int, num_actions: int) -> "TableModel":
        """Nothing seen: every action leads to the state that it is taken in, and pays nothing."""
        shape = (num_states, num_actions)
        stay = jnp.broadcast_to(jnp.arange(num_states, dtype=jnp.int32)[:, None], shape)
        zero = jnp.zeros((), jnp.int32)
        return cls(
            stay,
            jnp.zeros(shape),
            jnp.zeros(shape, bool),
            jnp.full(shape, -1, jnp.int32),
            jnp.zeros(num_states * num_actions, jnp.int32),
            zero,
            zero,
        )

    def learn(self, step: Transition) -> "TableModel":
        """After one more step in each environment, leaves [N]; states counted from 0."""
        here = step.observation, step.action
        number = step.observation * self.reward.shape[1] + step.action
        earlier = (number[:, None] == number[None]) & jnp.tril(jnp.ones((len(number),) * 2, bool), -1)
        is_new = (self.last_seen[here] < 0) & ~earlier.any(1)
        place = jnp.where(is_new, self.count + jnp.cumsum(is_new) - 1, len(self.order))
        return TableModel(
            self.next_state.at[here].set(step.next_observation.astype(jnp.int32)),
            self.reward.at[here].set(step.reward),
            self.terminated.at[here].set(step.terminated),
            self.last_seen.at[here].set(self.time),
            self.order.at[place].set(number.astype(jnp.int32), mode="drop"),
            self.count + is_new.sum(dtype=jnp.int32),
            self.time + 1,
        )

    def step(self, state: Int[Array, "*batch"], action: Int[Array, "*batch"], key: Key) -> Step:
        """What followed last time; no time limit is known."""
        here = state, action
        after, over = self.next_state[here], self.terminated[here]
        return Step(after, after, self.reward[here], over, jnp.zeros_like(over))
