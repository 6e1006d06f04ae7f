"""Probe environments: each needs one ability and nothing else, so a failure says what is broken (after A. Jones, 2020).

Every probe exists with vector observations (-1 or +1) or a Discrete index, and with two actions or one real number.
"""

from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from parnassus.types import Key, Step, pytree

KINDS = ("constant", "observation", "delayed", "action", "conditional", "endless", "ending")


class State(NamedTuple):
    index: Array  # what the observation shows: 0 or 1
    time: Array


@pytree
class Probe:
    """
    constant     one step, reward 1                                     V = 1
    observation  one step, reward -1 or +1 as observed                  V(o) = o
    delayed      two steps, reward 1 at the end                         V(first) = gamma, V(second) = 1
    action       one step, reward 1 for the right action                the action matters
    conditional  one step, the right action depends on the observation  the observation matters to the action
    endless      reward 1 a step, cut short after five, never over      V = 1 / (1 - gamma)
    ending       reward 1 a step, over after two                        V(first) = 1 + gamma, V(second) = 1

    The kind is a number once it is set, and so data: what is compiled for one kind serves all.
    """

    kind: Any  # one of KINDS, or its index
    continuous: bool = False
    tabular: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.kind, str):
            object.__setattr__(self, "kind", KINDS.index(self.kind))

    def is_one_of(self, *kinds: str) -> Array:
        """Whether this is one of these kinds."""
        return jnp.isin(self.kind, jnp.array([KINDS.index(kind) for kind in kinds]))

    @property
    def observation_space(self) -> gymnasium.Space:
        if self.tabular:
            return gymnasium.spaces.Discrete(2)
        return gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    @property
    def action_space(self) -> gymnasium.Space:
        if self.continuous:
            return gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)  # not the policy's units, on purpose
        return gymnasium.spaces.Discrete(2)

    def observe(self, index: Array) -> Array:
        """The observation that shows `index`."""
        return index if self.tabular else (2.0 * index - 1.0).astype(jnp.float32)[..., None]

    def reset(self, key: Key) -> tuple[State, Array]:
        random = self.is_one_of("observation", "conditional")
        index = (jax.random.bernoulli(key) & random).astype(jnp.int32)
        return State(index, jnp.int32(0)), self.observe(index)

    def step(self, state: State, action: Array, key: Key) -> Step:
        time, sign = state.time + 1, 2.0 * state.index - 1.0
        wanted = jnp.where(self.is_one_of("conditional"), sign, 1.0)
        if self.continuous:
            payoff = 1.0 - (action[0] - wanted) ** 2  # best: 1.0 or -1.0 in the environment's units
        else:
            payoff = jnp.where(action == (wanted > 0), 1.0, -1.0)
        rewards = {
            "constant": 1.0,
            "observation": sign,
            "delayed": (time == 2) * 1.0,
            "action": payoff,
            "conditional": payoff,
            "endless": 1.0,
            "ending": 1.0,
        }
        reward = jnp.stack([jnp.asarray(rewards[kind], jnp.float32) for kind in KINDS])[self.kind]
        two_steps, endless = self.is_one_of("delayed", "ending"), self.is_one_of("endless")
        over = (time >= jnp.where(two_steps, 2, 1)) & ~endless
        cut = (time >= 5) & endless
        index = jnp.where(two_steps, jnp.minimum(time, 1), state.index)
        after = State(index.astype(jnp.int32), time)
        return Step(after, self.observe(after.index), reward, over, cut)
