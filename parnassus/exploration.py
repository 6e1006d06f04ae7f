"""Ways to leave the greedy path."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.types import Key


def epsilon_greedy(
    key: Key, values: Float[Array, "*batch A"], epsilon: float | Float[Array, ""]
) -> Int[Array, "*batch"]:
    """With probability epsilon a uniform action, else an action of greatest value, ties broken uniformly.

    Watkins 1989; ties matter for tables that start at zero, where `argmax` would always say action 0.
    """
    explore_key, tie_key = jax.random.split(key)
    noise = jax.random.uniform(tie_key, values.shape)
    explore = jax.random.bernoulli(explore_key, epsilon, values.shape[:-1])
    best = values >= values.max(-1, keepdims=True)
    return jnp.argmax(jnp.where(best | explore[..., None], noise, -1.0), axis=-1).astype(jnp.int32)
