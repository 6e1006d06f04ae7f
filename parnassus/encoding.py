"""What a network sees of an observation: vectors as float32, classes as one-hot, images as floats in [0, 1].

The encoder also holds the running statistics of the vectors, so acting, learning, evaluation, export normalise alike.
"""

from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from parnassus.normalization import RunningStatistics
from parnassus.types import BadInput, Tree, pytree


class Leaf(NamedTuple):
    """How one part of an observation is encoded; hashable, so it can be static."""

    kind: str  # "vector", "image" or "classes"
    shape: tuple[int, ...]  # of the part as the environment gives it
    scale: float = 1.0  # images: what to multiply by
    channels_first: bool = False  # images: [C, H, W] is turned into [H, W, C]
    sizes: tuple[int, ...] = ()  # classes: how many there are of each
    start: tuple[int, ...] = ()  # classes: the number of the first

    @property
    def size(self) -> int:
        """How many numbers the network sees."""
        return sum(self.sizes) if self.kind == "classes" else int(np.prod(self.shape))


def layout(space: gymnasium.Space) -> tuple[Leaf, ...]:
    """How each part of an observation is encoded. Raises BadInput for spaces that have no encoding here."""
    return tuple(_leaves(space))


def _leaves(space: gymnasium.Space) -> list[Leaf]:
    """The parts of a space, in the order in which JAX flattens its observations."""
    match space:
        case spaces.Dict():
            return [leaf for key in sorted(space.spaces) for leaf in _leaves(space[key])]
        case spaces.Tuple():
            return [leaf for part in space.spaces for leaf in _leaves(part)]
        case spaces.Box() if len(space.shape) == 3:
            scale = 1 / 255 if space.dtype == np.uint8 else 1.0
            return [Leaf("image", space.shape, scale, channels_first=space.shape[0] < space.shape[2])]
        case spaces.Box() | spaces.MultiBinary():
            return [Leaf("vector", tuple(space.shape))]
        case spaces.Discrete():
            return [Leaf("classes", (), sizes=(int(space.n),), start=(int(space.start),))]
        case spaces.MultiDiscrete():
            nvec, start = np.ravel(space.nvec), np.ravel(space.start)
            return [Leaf("classes", tuple(space.shape), sizes=tuple(map(int, nvec)), start=tuple(map(int, start)))]
    raise BadInput(
        f"no network here can read observations from {space}; use Box, Discrete, MultiDiscrete, MultiBinary, "
        "or a Dict or Tuple of these"
    )


@pytree
class Encoder:
    """Observation (a tree of the space's structure) -> the same tree of float32 arrays for a network."""

    layout: tuple[Leaf, ...]
    statistics: Tree  # one RunningStatistics per vector of a Box if observations are normalised, else None

    @classmethod
    def create(cls, space: gymnasium.Space, normalize: bool = False) -> "Encoder":
        """Raises BadInput for spaces that have no encoding here (Text, Graph, Sequence)."""
        parts = layout(space)
        is_vector = [normalize and leaf.kind == "vector" for leaf in parts]
        stats = [RunningStatistics.zeros((leaf.size,)) if v else None for leaf, v in zip(parts, is_vector, strict=True)]
        return cls(parts, stats)

    def __call__(self, observation: Tree) -> Tree:
        """Leaves [*batch, *shape] -> [*batch, size], or [*batch, H, W, C] for images."""
        parts, structure = jax.tree.flatten(observation)
        encoded = [_encode(leaf, part) for leaf, part in zip(self.layout, parts, strict=True)]
        normalized = [x if s is None else s.normalize(x) for s, x in zip(self.statistics, encoded, strict=True)]
        return jax.tree.unflatten(structure, normalized)

    def update(self, observation: Tree) -> "Encoder":
        """The encoder after its statistics have also seen `observation`."""
        parts = zip(self.layout, self.statistics, jax.tree.leaves(observation), strict=True)
        return Encoder(self.layout, [None if s is None else s.update(_encode(leaf, x)) for leaf, s, x in parts])

    @property
    def are_images(self) -> tuple[bool, ...]:
        """For each part, whether it needs a convolutional network."""
        return tuple(leaf.kind == "image" for leaf in self.layout)


def _encode(leaf: Leaf, x: jax.Array | np.ndarray) -> jax.Array:
    x = jnp.asarray(x)
    if leaf.kind == "image":
        x = x.astype(jnp.float32) * leaf.scale
        return jnp.moveaxis(x, -3, -1) if leaf.channels_first else x
    batch = x.shape[: x.ndim - len(leaf.shape)]
    if leaf.kind == "vector":
        return x.astype(jnp.float32).reshape(*batch, leaf.size)
    x = x.reshape(*batch, len(leaf.sizes))
    one_hot = [jax.nn.one_hot(x[..., i] - leaf.start[i], size) for i, size in enumerate(leaf.sizes)]
    return jnp.concatenate(one_hot, axis=-1)


def zeros(space: gymnasium.Space, batch: tuple[int, ...] = ()) -> Tree:
    """A batch of zero observations or actions of a space, in the dtypes that JAX keeps them in (32 bit)."""
    match space:
        case spaces.Dict():
            return {key: zeros(part, batch) for key, part in space.spaces.items()}
        case spaces.Tuple():
            return tuple(zeros(part, batch) for part in space.spaces)
    return np.zeros((*batch, *(space.shape or ())), jax.dtypes.canonicalize_dtype(space.dtype))
