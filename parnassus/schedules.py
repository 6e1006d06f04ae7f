"""Hyper-parameters that change with the training progress.

    PPO(learning_rate=Linear(3e-4, 0.0), objective=Clip(Linear(0.2, 0.0)))

They are small pytrees, called with the fraction done.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.types import Fraction, Tree, pytree


@pytree
class Linear:
    """From `start` to `end` over the first `fraction` of training, then `end`."""

    start: float
    end: float = 0.0
    fraction: Fraction = 1.0  # of the planned environment steps

    def __call__(self, done: Float[Array, ""]) -> Float[Array, ""]:
        """The value when the fraction `done` of the planned steps has been taken."""
        return self.start + (self.end - self.start) * jnp.minimum(done / self.fraction, 1.0)


@pytree
class Progress:
    """Environment steps taken, of those planned. A learner that has schedules holds one; see `plan`."""

    steps: Int[Array, ""]
    planned: Int[Array, ""]

    @classmethod
    def start(cls) -> "Progress":
        """No steps taken; the training loop fills in how many are planned."""
        return cls(jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32))

    @property
    def done(self) -> Float[Array, ""]:
        """The fraction of the plan that is done, in [0, 1]."""
        return jnp.minimum(self.steps / self.planned, 1.0)

    def advance(self, reward: Float[Array, "T N"]) -> "Progress":
        """After a trajectory with these rewards: T * N more steps."""
        return Progress(self.steps + reward.size, self.planned)


def at(value: float | Linear | Array, progress: Progress) -> Float[Array, ""] | float | Array:
    """The value now, of a number or of a schedule."""
    return value(progress.done) if callable(value) else value


def plan(learner: Tree, steps: int) -> Tree:
    """The learner with every `Progress` in it planned for `steps` environment steps in all (new or longer runs)."""
    is_progress = lambda node: isinstance(node, Progress)  # noqa: E731
    planned = jnp.asarray(steps, jnp.int32)
    return jax.tree.map(
        lambda node: Progress(node.steps, planned) if is_progress(node) else node, learner, is_leaf=is_progress
    )
