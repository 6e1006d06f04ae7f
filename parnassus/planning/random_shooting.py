"""Random shooting: the first action of the best of K random sequences (Nagabandi et al. 2018, section IV).

draw K sequences of H actions evenly
evaluate each in the model
act by the first action of the best
"""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
from gymnasium import spaces

from parnassus.planning.sequences import Models, Value, draw, evaluate, first
from parnassus.types import BadInput, Count, Fraction, Key, Metrics, Tree, pytree


@pytree
class RandomShooting:
    """Plans for real (Box) and for Discrete or MultiDiscrete actions; nothing is kept from one step to the next."""

    horizon: Count = 12  # H: actions in a sequence
    candidates: Count = 1_000  # K: sequences
    particles: Count = 1  # for each sequence and model
    discount: Fraction = 1.0  # gamma, of future rewards: the horizon bounds the sum as well

    def check(self, action_space: gymnasium.Space) -> None:
        """Raises BadInput for a space whose actions cannot be drawn evenly."""
        if not isinstance(action_space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete):
            raise BadInput(f"random shooting needs Box, Discrete or MultiDiscrete actions, not {action_space}")

    def initial_memory(self, action_space: gymnasium.Space, num_envs: int) -> tuple[()]:
        """None."""
        return ()

    def __call__(
        self, models: Models, state: Tree, memory: tuple[()], key: Key, value: Value | None = None
    ) -> tuple[Any, tuple[()], Metrics]:
        """The action for one state, as a policy draws it, and what its sequence is worth; see `evaluate`."""
        draw_key, evaluate_key = jax.random.split(key)
        actions = draw(first(models).action_space, draw_key, (self.candidates, self.horizon))
        worth = evaluate(models, state, actions, evaluate_key, self.discount, self.particles, value)
        best = jnp.argmax(worth)
        return actions[best, 0], memory, {"plan/value": worth[best]}
