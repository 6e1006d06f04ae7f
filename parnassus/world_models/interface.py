"""What a learned model sees of two spaces: observations that are vectors, actions as vectors of numbers."""

from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Float, Num

from parnassus.types import BadInput, Spec


class Interface(NamedTuple):
    """The spaces as a model knows them; hashable, so it can be static."""

    observation_size: int  # S
    num_actions: int  # of a Discrete space; 0 for a Box
    action_shape: tuple[int, ...]  # *a
    bounded: tuple[bool, ...]  # for each number of a Box, whether the policy's own lies in [-1, 1]

    @classmethod
    def of(cls, spec: Spec) -> "Interface":
        """Raises BadInput for observations that are no vectors, and for actions other than Discrete and Box."""
        observations, actions = spec.observation_space, spec.action_space
        if not isinstance(observations, spaces.Box) or len(observations.shape) != 1:
            raise BadInput(
                f"a world model learns vectors (a Box of one dimension), not observations from {observations}"
            )
        size = observations.shape[0]
        match actions:
            case spaces.Discrete():
                return cls(size, int(actions.n), (), ())
            case spaces.Box():
                bounded = np.isfinite(actions.low) & np.isfinite(actions.high)
                return cls(size, 0, tuple(actions.shape), tuple(map(bool, np.ravel(bounded))))
        raise BadInput(f"a world model knows Discrete and Box actions, not {actions}")

    @property
    def action_size(self) -> int:
        """How many numbers an action is to a network."""
        return self.num_actions or len(self.bounded)

    @property
    def observation_space(self) -> gymnasium.Space:
        """What is imagined has no bounds."""
        return spaces.Box(-np.inf, np.inf, (self.observation_size,), np.float32)

    @property
    def action_space(self) -> gymnasium.Space:
        """The policy's own actions: [-1, 1] where a Box is bounded, Discrete from 0."""
        if self.num_actions:
            return spaces.Discrete(self.num_actions)
        low, high = (limit.astype(np.float32).reshape(self.action_shape) for limit in self._limits())
        return spaces.Box(low, high, dtype=np.float32)

    def encode(self, action: Num[Array, "*a"]) -> Float[Array, "n"]:
        """One action as numbers: a class as one-hot; of a Box what the environment makes of it, that is, clipped."""
        if self.num_actions:
            return jax.nn.one_hot(action, self.num_actions)
        return jnp.clip(action.reshape(-1), *self._limits())

    def _limits(self) -> tuple[np.ndarray, np.ndarray]:
        high = np.where(self.bounded, np.float32(1.0), np.float32(np.inf))
        return -high, high
