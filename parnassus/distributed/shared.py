"""A learner that many workers read and write at once, as one flat vector of 32-bit words.

    load    copy   <- the vector
    add     parameters and counters += after - before;  statistics <- after

Nothing keeps two from writing at the same time: a step may be lost where they do, and a copy may be taken half way
through another's writing. Niu et al. 2011 (arXiv 1106.5730) prove that stochastic gradient descent bears it.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from parnassus.types import AsynchronousAlgorithm, BadInput, Learner, Spec


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the leaves of a learner lie in one vector of words: parameters, then whole numbers, then the rest."""

    structure: Any  # of the learner, a PyTreeDef
    order: tuple[int, ...]  # of its leaves in the vector
    shapes: tuple[tuple[int, ...], ...]  # in the learner's order, as are
    dtypes: tuple[str, ...]
    parameters: int  # how many words
    counters: int

    @classmethod
    def of(cls, algorithm: AsynchronousAlgorithm, learner: Learner) -> "Layout":
        """Raises BadInput for a learner with anything but float32 and int32."""
        leaves, structure = jax.tree.flatten(learner)
        dtypes = tuple(str(leaf.dtype) for leaf in leaves)
        if strange := set(dtypes) - {"float32", "int32"}:
            raise BadInput(f"workers share numbers of type float32 and int32, not {', '.join(sorted(strange))}")
        numbered = jax.tree.unflatten(structure, range(len(leaves)))
        is_parameter = set(jax.tree.leaves(algorithm.parameters(numbered)))
        kind = [0 if i in is_parameter else 1 if dtypes[i] == "int32" else 2 for i in range(len(leaves))]
        order = tuple(sorted(range(len(leaves)), key=lambda i: kind[i]))
        words = [sum(leaf.size for leaf, k in zip(leaves, kind, strict=True) if k == wanted) for wanted in (0, 1)]
        return cls(structure, order, tuple(leaf.shape for leaf in leaves), dtypes, *words)

    @property
    def size(self) -> int:
        """The length of the vector."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def pack(self, learner: Learner) -> np.ndarray:
        """The learner as words, int32.

        On the host: compiled together with what made the learner, this would change the last bits of its numbers.
        """
        leaves = jax.tree.leaves(learner)
        return np.concatenate([np.asarray(leaves[i]).ravel().view(np.int32) for i in self.order])

    @partial(jax.jit, static_argnums=0)
    def unpack(self, words: Int[Array, "words"] | np.ndarray) -> Learner:
        """The words as a learner."""
        leaves: list[Any] = [None] * len(self.order)
        start = 0
        for i in self.order:
            end = start + int(np.prod(self.shapes[i]))
            leaves[i] = jax.lax.bitcast_convert_type(words[start:end].reshape(self.shapes[i]), self.dtypes[i])
            start = end
        return jax.tree.unflatten(self.structure, leaves)


class Shared:
    """A learner that many read and write at once, without a lock."""

    def __init__(self, layout: Layout, words: np.ndarray) -> None:
        self.layout, self.words = layout, words

    def load(self) -> Learner:
        """The learner, with arrays of its own."""
        return self.layout.unpack(self.words.copy())

    def store(self, learner: Learner) -> None:
        """Put all of it there; for when nobody else is at work."""
        self.words[:] = self.layout.pack(learner)

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        """Write the step of a worker that read `before` and came to `after`.

        Steps of the parameters and of counters add up. Of statistics the last to write decides: a running mean of
        squares must not become negative, as sums of differences from different moments can.
        """
        end, rest = self.layout.parameters, self.layout.parameters + self.layout.counters
        theta, old, new = (words[:end].view(np.float32) for words in (self.words, before, after))
        if np.array_equal(self.words[:end], before[:end]):
            theta[:] = new  # old + (new - old) is not always new: so a lone worker's bits are a synchronous learner's
        else:
            theta += new - old
        self.words[end:rest] += after[end:rest] - before[end:rest]
        self.words[rest:] = after[rest:]


def layout_of(algorithm: AsynchronousAlgorithm, spec: Spec) -> Layout:
    key = jax.eval_shape(lambda: jax.random.key(0))
    return Layout.of(algorithm, jax.eval_shape(partial(algorithm.init, spec=spec), key))


class Tickets:
    """How many segments of the chunk nobody has begun yet. Only this has a lock: chunks end where they should."""

    def __init__(self, context: Any) -> None:
        self.left = context.Value("q", 0)

    def put(self, number: int) -> None:
        """So many from now on; 0 lets every worker stop after its segment."""
        self.left.value = number

    def take(self) -> bool:
        """Whether there was one."""
        with self.left.get_lock():
            self.left.value -= 1
            return self.left.value >= 0
