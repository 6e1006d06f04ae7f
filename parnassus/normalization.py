"""Running statistics of observations and returns. They live in the learner, so that nothing can disagree about them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from parnassus.types import pytree


@pytree
class RunningStatistics:
    """Mean and variance of all vectors seen so far (Chan, Golub & LeVeque 1979, pairwise update)."""

    count: Float[Array, ""]
    mean: Float[Array, "*shape"]
    sum_of_squares: Float[Array, "*shape"]  # of deviations from the mean

    @classmethod
    def zeros(cls, shape: tuple[int, ...]) -> "RunningStatistics":
        """Nothing seen: mean 0, variance 1."""
        return cls(jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape))

    @property
    def variance(self) -> Float[Array, "*shape"]:
        """The population variance; 1 before anything was seen."""
        return jnp.where(self.count > 0, self.sum_of_squares / jnp.maximum(self.count, 1.0), 1.0)

    def update(self, batch: Float[Array, "..."]) -> "RunningStatistics":
        """The statistics after also seeing `batch` [..., *shape]."""
        axes = tuple(range(batch.ndim - self.mean.ndim))
        size = batch.size / max(self.mean.size, 1)
        batch_mean = batch.mean(axes)
        delta = batch_mean - self.mean
        count = self.count + size
        return RunningStatistics(
            count=count,
            mean=self.mean + delta * size / count,
            sum_of_squares=self.sum_of_squares
            + ((batch - batch.mean(axes, keepdims=True)) ** 2).sum(axes)
            + delta**2 * self.count * size / count,
        )

    def normalize(self, x: Float[Array, "..."], clip: float = 10.0) -> Float[Array, "..."]:
        """(x - mean) / std, clipped to [-clip, clip] as everywhere in the field."""
        mean, std = jnp.broadcast_to(self.mean, x.shape), jnp.broadcast_to(jnp.sqrt(self.variance + 1e-8), x.shape)
        return jnp.clip((x - mean) / std, -clip, clip)


@pytree
class RewardScaler:
    """Divides rewards by the standard deviation of the discounted return so far (Engstrom et al. 2020, section 3).

    The mean is not subtracted: that would change which policy is best where episodes can end early.
    """

    returns: Float[Array, "N"]  # sum of gamma^k r_{t-k} within the current episode
    statistics: RunningStatistics

    @classmethod
    def zeros(cls, num_envs: int) -> "RewardScaler":
        """No rewards seen: rewards pass unchanged."""
        return cls(jnp.zeros(num_envs), RunningStatistics.zeros(()))

    def update(
        self, reward: Float[Array, "T N"], done: Bool[Array, "T N"], discount: Float[Array, ""] | float
    ) -> "RewardScaler":
        """The scaler after a trajectory. A host environment that was reset between two chunks carries a tail of its
        former return over, which fades with gamma^t: it is a scale, not a return that anything bootstraps from."""
        last, returns = discounted_sums(self.returns, reward, done, discount)
        return RewardScaler(last, self.statistics.update(returns))

    def scale(self, reward: Float[Array, "T N"], clip: float = 10.0) -> Float[Array, "T N"]:
        """reward / std(return), clipped."""
        return jnp.clip(reward / jnp.sqrt(self.statistics.variance + 1e-8), -clip, clip)


def discounted_sums(
    start: Float[Array, "N"], reward: Float[Array, "T N"], done: Bool[Array, "T N"], discount: float | Float[Array, ""]
) -> tuple[Float[Array, "N"], Float[Array, "T N"]]:
    """Forward sums R_t = r_t + gamma R_{t-1}, restarted after an episode's end; also R_T for the next trajectory."""

    def step(running: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        r, ended = inputs
        running = r + discount * running
        return jnp.where(ended, 0.0, running), running

    return jax.lax.scan(step, start, (reward, done), unroll=8)
