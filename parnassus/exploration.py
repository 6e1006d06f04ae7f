"""Ways to leave the greedy path."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.types import Fraction, Key, Memory, NonNegative, Spec, pytree


def epsilon_greedy(
    key: Key, values: Float[Array, "*batch A"], epsilon: float | Float[Array, ""] | Float[Array, "*batch"]
) -> Int[Array, "*batch"]:
    """With probability epsilon a uniform action, else an action of greatest value, ties broken uniformly.

    Watkins 1989; ties matter for tables that start at zero, where `argmax` would always say action 0.
    """
    explore_key, tie_key = jax.random.split(key)
    noise = jax.random.uniform(tie_key, values.shape)
    explore = jax.random.bernoulli(explore_key, epsilon, values.shape[:-1])
    best = values >= values.max(-1, keepdims=True)
    return jnp.argmax(jnp.where(best | explore[..., None], noise, -1.0), axis=-1).astype(jnp.int32)


@pytree
class GaussianNoise:
    """Independent noise for a deterministic policy: N(0, scale^2) in each dimension of each action."""

    scale: NonNegative | Linear = 0.1  # sigma, where actions span [-1, 1]

    def initial_memory(self, spec: Spec) -> Memory:
        """None."""
        return ()

    def __call__(self, memory: Memory, action: Float[Array, "N *a"], key: Key, progress: Progress) -> tuple:
        """Noise for these actions, [N, *a], and the memory after it."""
        return at(self.scale, progress) * jax.random.normal(key, action.shape), memory


@pytree
class OrnsteinUhlenbeck:
    """Noise that drifts, from 0 at an episode's start: x <- x - theta x + sigma N(0, 1) (Lillicrap et al. 2016)."""

    scale: NonNegative | Linear = 0.2  # sigma, where actions span [-1, 1]
    reversion: Fraction = 0.15  # theta, towards 0

    def initial_memory(self, spec: Spec) -> Memory:
        """The noise so far."""
        return jnp.zeros((spec.num_envs, *(spec.action_space.shape or ())))

    def __call__(self, memory: Memory, action: Float[Array, "N *a"], key: Key, progress: Progress) -> tuple:
        """Noise for these actions, [N, *a], and the memory after it."""
        noise = (1.0 - self.reversion) * memory + at(self.scale, progress) * jax.random.normal(key, action.shape)
        return noise, noise
