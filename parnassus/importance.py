"""Importance sampling: the return J(pi) of a policy, estimated from the episodes of another, mu.

With rho_t = prod_{k <= t} pi(a_k | o_k) / mu(a_k | o_k), the states' probabilities cancel, and

    J(pi) = E_pi[sum_t gamma^t r_{t+1}] = E_mu[rho_{T-1} sum_t gamma^t r_{t+1}] = E_mu[sum_t gamma^t rho_t r_{t+1}].

The first form weighs an episode by its last ratio, the second each reward by the ratio so far ("per decision"): what is
done after a reward cannot have changed it, so there is nothing gained by its variance. Sutton and Barto 2018, sections
5.5 and 5.9; Precup, Sutton and Singh 2000.

    episodes = Episodes.first(trajectory, log_prob)          # log pi(a | o) of the trajectory's actions
    weights = decision_weights(episodes)                     # or trajectory_weights(episodes)
    ordinary(episodes, weights, discount)                    # or weighted(...), or clipped(..., limit=10.0)

Each estimator warns where a few episodes outweigh all others (not inside `jax.jit`, where nothing can warn).
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from parnassus.types import Transition

COLLAPSED = 0.1  # effective sample size, as a fraction of the episodes, below which an estimate is warned of


class Episodes(NamedTuple):
    """N episodes of mu, a column each; after an episode's end its rewards are 0 and its ratios 1."""

    reward: Float[Array, "T N"]
    log_ratio: Float[Array, "T N"]  # log pi(a_t | o_t) - log mu(a_t | o_t)

    @classmethod
    def first(cls, trajectory: Transition, log_prob: Float[Array, "T N"]) -> "Episodes":
        """The first episode of each column, which must begin with the trajectory; one that does not end is cut there.

        `log_prob` is log pi(a_t | o_t); log mu(a_t | o_t) is what acting left in `trajectory.extras["log_prob"]`.
        """
        ended = jnp.cumsum(trajectory.done, axis=0) - trajectory.done > 0  # before this step
        log_ratio = log_prob - trajectory.extras["log_prob"]
        return cls(jnp.where(ended, 0.0, trajectory.reward), jnp.where(ended, 0.0, log_ratio))


def trajectory_weights(episodes: Episodes) -> Float[Array, "T N"]:
    """log rho_{T-1}, the same for each step of an episode. [T, N]"""
    return jnp.broadcast_to(episodes.log_ratio.sum(0, keepdims=True), episodes.log_ratio.shape)


def decision_weights(episodes: Episodes) -> Float[Array, "T N"]:
    """log rho_t: each step by the actions up to its own. [T, N]"""
    return jnp.cumsum(episodes.log_ratio, axis=0)


def ordinary(episodes: Episodes, log_weight: Float[Array, "T N"], discount: float | Array) -> Float[Array, ""]:
    """mean_n sum_t gamma^t rho_t r_{t+1}: unbiased, of a variance that may be infinite (eq. 5.5)."""
    _warn(log_weight)
    return _discounted(episodes, discount, jnp.exp(log_weight) / log_weight.shape[1])


def weighted(episodes: Episodes, log_weight: Float[Array, "T N"], discount: float | Array) -> Float[Array, ""]:
    """sum_t gamma^t (sum_n rho_t r_{t+1}) / (sum_n rho_t): biased towards J(mu), consistent, bounded (eq. 5.6).

    A weighted mean of the returns, or of the rewards at each time, so it never leaves their range.
    """
    _warn(log_weight)
    return _discounted(episodes, discount, jax.nn.softmax(log_weight, axis=1))


def clipped(
    episodes: Episodes, log_weight: Float[Array, "T N"], discount: float | Array, limit: float | Array
) -> Float[Array, ""]:
    """The ordinary estimate with min(rho_t, limit): bounded variance for a bias (Ionides 2008).

    Rewards that are never negative are underestimated. The bias vanishes as `limit` grows with sqrt(N).
    """
    log_weight = jnp.minimum(log_weight, jnp.log(limit))
    return ordinary(episodes, log_weight, discount)


def effective_sample_size(log_weight: Float[Array, "*steps N"]) -> Float[Array, "*steps"]:
    """(sum_n rho)^2 / sum_n rho^2, between 1 and N: as many episodes of pi itself would say as much (Kong 1992)."""
    return 1.0 / (jax.nn.softmax(log_weight, axis=-1) ** 2).sum(-1)


def _discounted(episodes: Episodes, discount: float | Array, weight: Float[Array, "T N"]) -> Float[Array, ""]:
    """sum_t gamma^t sum_n weight r_{t+1}"""
    return (discount ** jnp.arange(len(weight)) * (weight * episodes.reward).sum(1)).sum()


def _warn(log_weight: Float[Array, "T N"]) -> None:
    if isinstance(log_weight, jax.core.Tracer):
        return
    size, count = float(effective_sample_size(log_weight).min()), log_weight.shape[1]
    if size < COLLAPSED * count:
        warnings.warn(
            f"importance weights have collapsed: {count} episodes say as much as {size:.1f} would; "
            "the policies are too far apart for these episodes",
            stacklevel=3,
        )
