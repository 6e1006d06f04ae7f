"""Planning by refining a Gaussian over sequences of actions: the cross-entropy method (Rubinstein 1999; as in Chua et
al. 2018, section 5) and model-predictive path integral control (Williams et al. 2017, Algorithm 2).

    mean <- the last plan without its first action; std <- first_std
    repeat
        draw K sequences a ~ Normal(mean, std^2) of H actions, clipped to their bounds
        evaluate each in the model
        mean, std <- those of the sequences, weighted by what they are worth
    act by the first action of the mean

The weights of the cross-entropy method are equal for the elites and 0 for all others; those of path integrals are
softmax(worth / temperature), and the standard deviation stays.
"""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Float

from parnassus.planning.sequences import Models, Value, evaluate, first
from parnassus.types import BadInput, Count, Fraction, Key, Metrics, NonNegative, Tree, pytree


@pytree
class CEM:
    """The cross-entropy method, for Box actions; the remembered plan is where the next search begins."""

    horizon: Count = 12  # H: actions in a sequence
    candidates: Count = 1_000  # K: sequences in an iteration
    iterations: Count = 10  # in which sequences are drawn, and the Gaussian moves to the best
    elites: Count = 100  # the best sequences, which the next mean and standard deviation are of; more where worth ties
    momentum: Fraction = 0.1  # the weight of the last mean and standard deviation in the next
    first_std: NonNegative = 1.0  # standard deviation of the first iteration, where actions are in [-1, 1]
    least_std: NonNegative = 0.05  # so that the search does not end too early
    particles: Count = 1  # for each sequence and model
    discount: Fraction = 1.0  # gamma, of future rewards: the horizon bounds the sum as well

    def check(self, action_space: gymnasium.Space) -> None:
        """Raises BadInput for a space that is not a Box, or where there are fewer candidates than elites."""
        if self.elites > self.candidates:
            raise BadInput(f"elites must be at most candidates ({self.candidates}), not {self.elites}")
        _check(action_space, "the cross-entropy method")

    def initial_memory(self, action_space: gymnasium.Space, num_envs: int) -> Float[Array, "N H *a"]:
        """The plan of doing nothing, for each environment."""
        return jnp.zeros((num_envs, self.horizon, *(action_space.shape or ())))

    def refine(
        self,
        actions: Float[Array, "K H *a"],
        worth: Float[Array, "K"],
        mean: Float[Array, "H *a"],
        std: Float[Array, "H *a"],
    ) -> tuple[Float[Array, "H *a"], Float[Array, "H *a"]]:
        """The mean and standard deviation of the elites, with momentum."""
        threshold = jax.lax.top_k(worth, self.elites)[0][-1]
        is_elite = (worth >= threshold).astype(jnp.float32)
        elite_mean, elite_std = _moments(is_elite / is_elite.sum(), actions)
        std = self.momentum * std + (1.0 - self.momentum) * elite_std
        return self.momentum * mean + (1.0 - self.momentum) * elite_mean, jnp.maximum(std, self.least_std)

    def __call__(
        self, models: Models, state: Tree, memory: Float[Array, "H *a"], key: Key, value: Value | None = None
    ) -> tuple[Float[Array, "*a"], Float[Array, "H *a"], Metrics]:
        """The action for one state, as a policy draws it, and the plan from the next step on; see `evaluate`."""
        return _plan(self, models, state, memory, key, value)


@pytree
class MPPI:
    """Model-predictive path integral control, for Box actions: every sequence counts, by what it is worth."""

    horizon: Count = 12  # H: actions in a sequence
    candidates: Count = 1_000  # K: sequences in an iteration
    iterations: Count = 1  # in which sequences are drawn, and the mean moves
    temperature: NonNegative = 1.0  # lambda, in units of reward: the smaller, the more the best alone counts
    first_std: NonNegative = 0.5  # of all iterations, where actions are in [-1, 1]
    particles: Count = 1  # for each sequence and model
    discount: Fraction = 1.0  # gamma, of future rewards: the horizon bounds the sum as well

    def check(self, action_space: gymnasium.Space) -> None:
        """Raises BadInput for a space that is not a Box."""
        _check(action_space, "path integral control")

    def initial_memory(self, action_space: gymnasium.Space, num_envs: int) -> Float[Array, "N H *a"]:
        """The plan of doing nothing, for each environment."""
        return jnp.zeros((num_envs, self.horizon, *(action_space.shape or ())))

    def refine(
        self,
        actions: Float[Array, "K H *a"],
        worth: Float[Array, "K"],
        mean: Float[Array, "H *a"],
        std: Float[Array, "H *a"],
    ) -> tuple[Float[Array, "H *a"], Float[Array, "H *a"]]:
        """The mean of all sequences, weighted; the standard deviation as it was."""
        temperature = jnp.maximum(self.temperature, jnp.finfo(worth.dtype).tiny)
        return _moments(jax.nn.softmax((worth - worth.max()) / temperature), actions)[0], std

    def __call__(
        self, models: Models, state: Tree, memory: Float[Array, "H *a"], key: Key, value: Value | None = None
    ) -> tuple[Float[Array, "*a"], Float[Array, "H *a"], Metrics]:
        """The action for one state, as a policy draws it, and the plan from the next step on; see `evaluate`."""
        return _plan(self, models, state, memory, key, value)


def _plan(
    planner: CEM | MPPI, models: Models, state: Tree, memory: Float[Array, "H *a"], key: Key, value: Value | None
) -> tuple[Float[Array, "*a"], Float[Array, "H *a"], Metrics]:
    space: Any = first(models).action_space
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    limit = np.broadcast_to(np.where(bounded, 1.0, np.inf).astype(np.float32), (1, *memory.shape))

    def iteration(carry: tuple[Array, Array, Key], _: None) -> tuple[tuple[Array, Array, Key], Array]:
        mean, std, key = carry
        key, draw_key, evaluate_key = jax.random.split(key, 3)
        noise = jax.random.normal(draw_key, (planner.candidates, *mean.shape))
        actions = jnp.clip(mean[None] + std[None] * noise, -limit, limit)
        worth = evaluate(models, state, actions, evaluate_key, planner.discount, planner.particles, value)
        return (*planner.refine(actions, worth, mean, std), key), worth.max()

    start = memory, jnp.full_like(memory, planner.first_std), key
    (mean, std, _), best = jax.lax.scan(iteration, start, None, planner.iterations)
    following = jnp.concatenate([mean[1:], jnp.zeros_like(mean[:1])])
    return mean[0], following, {"plan/value": best[-1], "plan/std": std.mean()}


def _moments(
    weight: Float[Array, "K"], actions: Float[Array, "K H *a"]
) -> tuple[Float[Array, "H *a"], Float[Array, "H *a"]]:
    """Weighted mean and standard deviation, as products: elites are not gathered, which is slow on the CPU."""
    mean = jnp.tensordot(weight, actions, 1)
    return mean, jnp.sqrt(jnp.tensordot(weight, (actions - mean[None]) ** 2, 1))


def _check(action_space: gymnasium.Space, method: str) -> None:
    if not isinstance(action_space, spaces.Box):
        raise BadInput(f"{method} needs continuous (Box) actions, not {action_space}; see RandomShooting or search")
