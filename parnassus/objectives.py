"""What PPO ascends on the transitions of an old policy: the importance-weighted advantage, kept near that policy.

    Unclipped   E[ratio A]                                                 Schulman et al. 2017, equation 6
    Clip        E[min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A)]   equation 7
    FixedKL     E[ratio A - beta KL(old || new)]                           equation 8
    AdaptiveKL  the same, with a beta that follows the KL                  section 4

where ratio = pi_new(a | o) / pi_old(a | o). At the old policy all of them have the same gradient, the policy gradient.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from parnassus.schedules import Linear, Progress, at
from parnassus.types import Metrics, NonNegative, pytree

State = Any  # what an objective adapts between iterations; it is part of the learner
Result = tuple[Float[Array, ""], Metrics]


class Change(NamedTuple):
    """A new policy beside the old one, on transitions of the old."""

    log_ratio: Float[Array, "B"]  # log pi_new(a | o) - log pi_old(a | o)
    advantage: Float[Array, "B"]  # A(o, a) of the old policy
    kl: Float[Array, "B"]  # KL(pi_old(. | o) || pi_new(. | o)), exact


@runtime_checkable
class Objective(Protocol):
    """One number to ascend."""

    def init(self) -> State:
        """The state before the first iteration; () if the objective has none."""

    def __call__(self, state: State, change: Change, progress: Progress) -> Result:
        """The objective, a mean over the transitions, and metrics."""

    def update(self, state: State, kl: Float[Array, ""]) -> State:
        """The state after an iteration that moved the policy by `kl`, the mean over its observations."""


@pytree
class Unclipped:
    """L^CPI, equation 6: nothing holds the new policy near the old one but the number and size of the steps."""

    def init(self) -> tuple[()]:
        return ()

    def __call__(self, state: tuple[()], change: Change, progress: Progress) -> Result:
        return _surrogate(change), {}

    def update(self, state: tuple[()], kl: Float[Array, ""]) -> tuple[()]:
        return ()


@pytree
class Clip:
    """L^CLIP, equation 7: no incentive to move the ratio outside [1 - clip_range, 1 + clip_range]."""

    clip_range: NonNegative | Linear = 0.2  # epsilon: how far from 1 the ratio is still rewarded

    def init(self) -> tuple[()]:
        return ()

    def __call__(self, state: tuple[()], change: Change, progress: Progress) -> Result:
        """
        min(ratio A, clip(ratio) A) is A times min(ratio, 1 + epsilon) where A > 0, and A times max(ratio, 1 - epsilon)
        where A < 0; so written, its gradient is a single selection.
        """
        ratio, clip_range = jnp.exp(change.log_ratio), at(self.clip_range, progress)
        gains = change.advantage > 0
        limit = jnp.where(gains, 1.0 + clip_range, 1.0 - clip_range)
        objective = (jnp.where((ratio > limit) == gains, limit, ratio) * change.advantage).mean()
        return objective, {"policy/clip_fraction": (jnp.abs(ratio - 1.0) > clip_range).mean()}

    def update(self, state: tuple[()], kl: Float[Array, ""]) -> tuple[()]:
        return ()


@pytree
class FixedKL:
    """L^KLPEN, equation 8, with a constant beta: each nat of KL(old || new) costs beta."""

    beta: NonNegative | Linear = 3.0  # the price of a nat; 3 is the best of the paper's Table 1

    def init(self) -> tuple[()]:
        return ()

    def __call__(self, state: tuple[()], change: Change, progress: Progress) -> Result:
        return _surrogate(change) - at(self.beta, progress) * change.kl.mean(), {}

    def update(self, state: tuple[()], kl: Float[Array, ""]) -> tuple[()]:
        return ()


@pytree
class AdaptiveKL:
    """L^KLPEN, equation 8, with a beta that is looked for: an iteration should move the policy by `target` nats.

    After an iteration, with d = E[KL(old || new)]: beta / 2 if d < target / 1.5, and 2 beta if d > 1.5 target.
    """

    target: NonNegative = 0.01  # d_targ, in nats; 0.01 is the best of the paper's Table 1
    initial: NonNegative = 1.0  # the first beta, soon left behind

    def init(self) -> Float[Array, ""]:
        """beta."""
        return jnp.asarray(self.initial, jnp.float32)

    def __call__(self, state: Float[Array, ""], change: Change, progress: Progress) -> Result:
        return _surrogate(change) - state * change.kl.mean(), {"policy/kl_coefficient": state}

    def update(self, state: Float[Array, ""], kl: Float[Array, ""]) -> Float[Array, ""]:
        factor = jnp.where(kl > 1.5 * self.target, 2.0, jnp.where(kl < self.target / 1.5, 0.5, 1.0))
        return jnp.clip(state * factor, 1e-6, 1e6)  # so that it can come back: no doubling leads away from 0


def _surrogate(change: Change) -> Float[Array, ""]:
    """L^CPI: E[ratio A]."""
    return (jnp.exp(change.log_ratio) * change.advantage).mean()
