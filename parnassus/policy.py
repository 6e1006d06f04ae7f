"""A trained policy as a function of an observation: what a user deploys."""

import gymnasium
import jax
import numpy as np
from gymnasium import spaces

from parnassus.collect import compiled_act
from parnassus.encoding import zeros
from parnassus.training import arrays
from parnassus.types import Algorithm, BadInput, Behavior, Memory, Spec, Tree


class Policy:
    """policy(observation) -> action, both NumPy, the action in the environment's own units; without exploration.

    Takes one observation or a batch [B, ...]. An algorithm with a memory (a recurrent network, a planner) remembers the
    calls before: `reset` starts a new episode.
    """

    def __init__(self, algorithm: Algorithm, behavior: Behavior, spec: Spec) -> None:
        self._algorithm, self._spec = arrays(algorithm), spec
        self._act = compiled_act(spec, False, self._algorithm, behavior)  # for any batch size
        self._key = jax.random.key_data(jax.random.key(0))  # only breaks ties
        self._memory: tuple[int, Memory] | None = None

    def reset(self) -> None:
        """Forget: the next observation is an episode's first."""
        self._memory = None

    def __call__(self, observation: Tree) -> Tree:
        """The actions. Raises BadInput for an observation of another shape, or one that is not finite."""
        observation, is_single = _batch(self._spec.observation_space, observation)
        size = len(jax.tree.leaves(observation)[0])
        spec = Spec(self._spec.observation_space, self._spec.action_space, size)
        if self._memory is None or self._memory[0] != size:
            self._memory = (size, self._algorithm.initial_memory(spec))
        action, _, memory, _, _ = self._act(self._memory[1], observation, self._key)
        self._memory = (size, memory)
        action = _typed(spec.action_space, action)
        return jax.tree.map(lambda x: x[0], action) if is_single else action


def _batch(space: gymnasium.Space, observation: Tree) -> tuple[Tree, bool]:
    """The observation with a batch dimension and in 32 bits, and whether it had none."""
    template = zeros(space)
    try:
        parts = jax.tree.structure(template).flatten_up_to(observation)  # type: ignore[attr-defined]
        flat = [(like, np.asarray(x)) for like, x in zip(jax.tree.leaves(template), parts, strict=True)]
        is_number = all(x.dtype.kind in "biuf" for _, x in flat)
    except ValueError:  # another structure, or rows of unequal length
        is_number = False
    if not is_number:
        raise BadInput(f"an observation of {space} is expected, not {type(observation).__name__} {observation!r}")
    batched = {x.ndim - like.ndim for like, x in flat}
    if batched not in ({0}, {1}) or any(x.shape[x.ndim - like.ndim :] != like.shape for like, x in flat):
        raise BadInput(
            f"an observation of {space} is expected, or a batch, not one of shape {[x.shape for _, x in flat]}"
        )
    if not all(np.isfinite(x).all() for _, x in flat):
        raise BadInput("the observation is not finite (NaN or infinite)")
    is_single = batched == {0}
    leaves = [(x[None] if is_single else x).astype(like.dtype) for like, x in flat]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), is_single


def _typed(space: gymnasium.Space, action: Tree) -> Tree:
    """NumPy actions in the dtypes of the space."""
    match space:
        case spaces.Dict():
            return {key: _typed(part, action[key]) for key, part in space.spaces.items()}
        case spaces.Tuple():
            return tuple(_typed(part, x) for part, x in zip(space.spaces, action, strict=True))
    return np.asarray(action).astype(space.dtype)
