"""Advantage estimators: how much better than V(o_t) an action turned out to be, by looking ahead more or less far.

    VPG(estimator=GAE(0.97))

The further one looks, the less it depends on V (bias), and the more on chance (variance). All bootstrap with the value
of the true successor where a time limit or the trajectory cuts an episode short.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float

from parnassus.returns import Scalar, generalized_advantages, lambda_returns, n_step_returns
from parnassus.types import Count, Fraction, pytree


@runtime_checkable
class Estimator(Protocol):
    """Rewards, V(o_t), V(o_{t+1}), ends of episodes and gamma -> A_t, all [T, N]."""

    def __call__(
        self,
        reward: Float[Array, "T N"],
        value: Float[Array, "T N"],
        next_value: Float[Array, "T N"],
        terminated: Bool[Array, "T N"],
        truncated: Bool[Array, "T N"],
        discount: Scalar,
    ) -> Float[Array, "T N"]: ...


@pytree
class GAE:
    """sum_l (gamma lambda)^l delta_{t+l}, of all n-step advantages a weighted mean (Schulman et al. 2016, eq. 16)."""

    gae_lambda: Fraction = 0.95  # lambda: 0 looks one step ahead, 1 to the end

    def __call__(
        self,
        reward: Float[Array, "T N"],
        value: Float[Array, "T N"],
        next_value: Float[Array, "T N"],
        terminated: Bool[Array, "T N"],
        truncated: Bool[Array, "T N"],
        discount: Scalar,
    ) -> Float[Array, "T N"]:
        """A_t. [T, N]"""
        return generalized_advantages(reward, value, next_value, terminated, truncated, discount, self.gae_lambda)


@pytree
class NStep:
    """r_{t+1} + ... + gamma^{n-1} r_{t+n} + gamma^n V(o_{t+n}) - V(o_t)."""

    n: Count = 5  # steps to look ahead, at most

    def __call__(
        self,
        reward: Float[Array, "T N"],
        value: Float[Array, "T N"],
        next_value: Float[Array, "T N"],
        terminated: Bool[Array, "T N"],
        truncated: Bool[Array, "T N"],
        discount: Scalar,
    ) -> Float[Array, "T N"]:
        """A_t. [T, N]"""
        return n_step_returns(reward, next_value, terminated, truncated, discount, self.n) - value


@pytree
class RewardsToGo:
    """r_{t+1} + gamma r_{t+2} + ... to the end of the episode, less the baseline V(o_t)."""

    def __call__(
        self,
        reward: Float[Array, "T N"],
        value: Float[Array, "T N"],
        next_value: Float[Array, "T N"],
        terminated: Bool[Array, "T N"],
        truncated: Bool[Array, "T N"],
        discount: Scalar,
    ) -> Float[Array, "T N"]:
        """A_t. [T, N]"""
        return lambda_returns(reward, next_value, terminated, truncated, discount, 1.0) - value


@pytree
class TD:
    """The temporal-difference error delta_t = r_{t+1} + gamma V(o_{t+1}) - V(o_t)."""

    def __call__(
        self,
        reward: Float[Array, "T N"],
        value: Float[Array, "T N"],
        next_value: Float[Array, "T N"],
        terminated: Bool[Array, "T N"],
        truncated: Bool[Array, "T N"],
        discount: Scalar,
    ) -> Float[Array, "T N"]:
        """A_t. [T, N]"""
        return n_step_returns(reward, next_value, terminated, truncated, discount, 1) - value
