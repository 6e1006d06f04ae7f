"""A JAX environment as a simulator to plan in: its observations tell its state.

A planner imagines from where the environment is. A learned model's state is the observation; the true environment's
may hold more than it shows (the time, what is hidden), so here it is shown beside the observation.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces

from parnassus.types import BadInput, Env, Key, Step, Tree, pytree


@pytree
class Simulator:
    """`env` with observations {"observation": the environment's own, "state": the leaves of its state}.

    The state, and what `step` takes and gives as one, are the environment's own. `run.train` puts it around the
    environment of an algorithm that has a field `simulator`, and into that field.
    """

    env: Env

    @property
    def observation_space(self) -> gymnasium.Space:
        """A Dict of the environment's own space and a Tuple of Boxes, one for each leaf of its state."""
        shown = jax.eval_shape(lambda: self._shown(*self.env.reset(jax.random.key(0))))
        return spaces.Dict(
            {"observation": self.env.observation_space, "state": spaces.Tuple([_box(x) for x in shown["state"]])}
        )

    @property
    def action_space(self) -> gymnasium.Space:
        """The environment's own."""
        return self.env.action_space

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        """The environment's own, and its state beside the observation."""
        state, observation = self.env.reset(key)
        return state, self._shown(state, observation)

    def step(self, state: Tree, action: Tree, key: Key) -> Step:
        """The environment's own, and its state beside the observation."""
        after = self.env.step(state, action, key)
        return after._replace(observation=self._shown(after.state, after.observation))

    def state(self, observation: Tree) -> Tree:
        """The environment's state that an observation shows, for any leading batch dimensions."""
        template, structure = jax.tree.flatten(jax.eval_shape(lambda: self.env.reset(jax.random.key(0))[0]))
        leaves = [
            jax.random.wrap_key_data(x) if _is_key(like) else x
            for like, x in zip(template, observation["state"], strict=True)
        ]
        return jax.tree.unflatten(structure, leaves)

    @staticmethod
    def _shown(state: Tree, observation: Tree) -> dict[str, Tree]:
        leaves = tuple(jax.random.key_data(x) if _is_key(x) else x for x in jax.tree.leaves(state))
        return {"observation": observation, "state": leaves}


def visible(observation: Tree) -> Tree:
    """What the environment itself shows, of a Simulator's observation or of its own."""
    return observation["observation"] if _shows_state(observation) else observation


def visible_space(space: gymnasium.Space) -> gymnasium.Space:
    """The environment's own observation space, of a Simulator's or of its own."""
    return space["observation"] if isinstance(space, spaces.Dict) and _shows_state(space.spaces) else space


def _shows_state(observation: Tree) -> bool:
    return isinstance(observation, Mapping) and set(observation) == {"observation", "state"}


def needed(simulator: Simulator | None, method: str) -> Simulator:
    """The simulator. Raises BadInput, which says what `method` needs, where there is none."""
    if simulator is None:
        raise BadInput(
            f"{method} plans in the environment itself, which must be a JAX environment (jax:..., gymnax:...); "
            "PETS, MBPO, PlaNet and MuZero learn a model of any"
        )
    return simulator


def informed(config: Any, simulator: Simulator) -> Any:
    """A dataclass with the simulator in its field of that name, and in that of its parts (such as a teacher)."""
    changes = {}
    for field in dataclasses.fields(config) if dataclasses.is_dataclass(config) else ():
        value = getattr(config, field.name)
        new = simulator if field.name == "simulator" else informed(value, simulator)
        if new is not value:
            changes[field.name] = new
    return dataclasses.replace(config, **changes) if changes else config


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _box(leaf: jax.ShapeDtypeStruct) -> spaces.Box:
    """All numbers of the leaf's kind."""
    if leaf.dtype == np.bool_:
        return spaces.Box(0, 1, leaf.shape, np.bool_)  # type: ignore[arg-type]  # Gymnasium takes it
    if np.issubdtype(leaf.dtype, np.integer):
        limits = np.iinfo(leaf.dtype)
        return spaces.Box(limits.min, limits.max, leaf.shape, leaf.dtype.type)
    return spaces.Box(-np.inf, np.inf, leaf.shape, leaf.dtype.type)
