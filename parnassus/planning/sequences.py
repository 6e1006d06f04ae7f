"""Open-loop sequences of actions: what they are worth in a model, and how they are drawn.

A model is anything with the `step` and the `action_space` of an environment: the true one and a learned one alike.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Float, Num

from parnassus.rollout import env_action
from parnassus.types import BadInput, Key, Tree

Models = Any  # models side by side: one pytree, leaves [M, ...]
Value = Callable[[Tree], Float[Array, ""]]  # of one observation: what is to come after the last action


def alone(model: Tree) -> Models:
    """One model as models side by side, M = 1."""
    return jax.tree.map(lambda x: jnp.asarray(x)[None], model)


def first(models: Models) -> Any:
    """The first of the models: all have the same spaces."""
    return jax.tree.map(lambda x: x[0], models)


def evaluate(
    models: Models,
    state: Tree,
    actions: Num[Array, "K H *a"],
    key: Key,
    discount: float | Array,
    particles: int = 1,
    value: Value | None = None,
) -> Float[Array, "K"]:
    """What K sequences of H actions are worth from one state, actions as a policy draws them.

        mean over models and particles of  sum_{t<H} gamma^t r_{t+1}  +  gamma^H value(o_H)

    Nothing counts after a termination; time limits are ignored. Each particle keeps its model for the whole horizon
    (TS-infinity; Chua et al. 2018, section 5.1). All sequences meet the same chances (common random numbers): between
    any two of them, what differs is due to their actions. Where a model leaves the finite numbers, a sequence is worth
    the least that can be said.
    """
    by_time = jnp.moveaxis(actions, 1, 0)  # [H, K, *a]

    def of_model(model: Any, key: Key) -> Float[Array, "K"]:
        step_one = lambda state, action, key: model.step(state, env_action(model.action_space, action), key)  # noqa: E731
        step_particles = jax.vmap(step_one, (0, None, 0))  # the particles of one sequence
        step_all = jax.vmap(step_particles, (0, 0, None))  # [K, P]: one product per layer of a network

        def step(carry: tuple, action: Array) -> tuple[tuple, None]:
            states, _, weight, total, key = carry  # the key is carried: JAX's checker errs on keys that are scanned
            key, step_key = jax.random.split(key)
            after = step_all(states, action, jax.random.split(step_key, particles))
            total = total + jnp.where(weight > 0, weight * after.reward, 0.0)  # also where a dead state's is NaN
            weight = jnp.where(after.terminated, 0.0, discount * weight)
            return (after.state, after.observation, weight, total, key), None

        shape = (actions.shape[0], particles)
        states = jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), state)
        unseen = jax.eval_shape(step_one, state, by_time[0, 0], jax.random.key(0)).observation
        observation = jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape), x.dtype), unseen)
        start = states, observation, jnp.ones(shape), jnp.zeros(shape), key
        (_, observation, weight, total, _), _ = jax.lax.scan(step, start, by_time)
        if value is not None:
            total = total + jnp.where(weight > 0, weight * jax.vmap(jax.vmap(value))(observation), 0.0)
        return total.mean(1)

    num_models = len(jax.tree.leaves(models)[0])
    worth = jax.vmap(of_model)(models, jax.random.split(key, num_models)).mean(0)
    return jnp.nan_to_num(worth, nan=jnp.finfo(worth.dtype).min)


def draw(space: gymnasium.Space, key: Key, shape: tuple[int, ...]) -> Num[Array, "..."]:
    """Actions drawn evenly, [*shape, *a]: from [-1, 1] for a Box, from 0 for Discrete and MultiDiscrete.

    Raises BadInput for other spaces.
    """
    match space:
        case spaces.Box():
            return jax.random.uniform(key, (*shape, *space.shape), minval=-1.0, maxval=1.0)
        case spaces.Discrete():
            return jax.random.randint(key, shape, 0, int(space.n))
        case spaces.MultiDiscrete():
            full = (*shape, *space.shape)
            return jax.random.randint(key, full, 0, np.broadcast_to(np.asarray(space.nvec, np.int32), full))
    raise BadInput(f"sequences of actions can be drawn from Box, Discrete or MultiDiscrete, not from {space}")
