"""How good a learned model is: what its intervals cover, how far its imagination holds, and who exploits its errors."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from parnassus.off_policy import Experience, look_ahead
from parnassus.types import Transition
from parnassus.world_models.ensemble import Member, Outputs, predict

LEVELS = np.linspace(0.1, 0.9, 9, dtype=np.float32)


def probability_transform(outputs: Outputs, truth: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """The share of the predicted distribution that lies below the truth, F(y) = mean_i Phi((y - mu_i) / sigma_i).

    `outputs` [E, B, D] are those of an ensemble, whose prediction is the even mixture of its members'. Of a calibrated
    one F(y) is uniform (Dawid 1984). Raises ValueError for members that say nothing of noise.
    """
    if outputs.variance is None:
        raise ValueError("a deterministic model has no intervals: an Ensemble has")
    return norm.cdf((truth[None] - outputs.mean) / jnp.sqrt(outputs.variance)).mean(0)


def coverage(
    transform: Float[Array, "B D"],
    levels: Float[np.ndarray | Array, "L"] | Float[np.ndarray | Array, "L D"] = LEVELS,
) -> Float[Array, "L D"]:
    """For each level p, how many of the truths lie in the central interval of probability p, number by number.

    A level may be another for each number, as in `raw_levels`.
    """
    levels = jnp.asarray(levels)
    if levels.ndim == 1:
        levels = jnp.broadcast_to(levels[:, None], (len(levels), transform.shape[1]))
    return (2.0 * jnp.abs(transform - 0.5)[None] <= levels[:, None]).mean(1)


def expected_calibration_error(
    transform: Float[Array, "B D"], levels: Float[np.ndarray | Array, "L"] = LEVELS
) -> Float[Array, ""]:
    """The mean of |coverage - level| over levels and numbers (Kuleshov et al. 2018, for central intervals)."""
    return jnp.abs(coverage(transform, levels) - jnp.asarray(levels)[:, None]).mean()


def held_out_transform(members: Member, batch: Experience) -> Float[Array, "B D"]:
    """`probability_transform` of (o', r) in transitions that the members have not seen."""
    truth = jnp.concatenate([batch.next_observation, batch.reward[:, None]], axis=-1)
    return probability_transform(predict(members, batch.observation, batch.action), truth)


def open_loop(
    members: Member, trajectory: Transition, num_steps: int
) -> tuple[Float[Array, "K W N S"], Float[Array, "K W N"]]:
    """What the ensemble expects k = 1 ... K steps after each o_t of a trajectory, under the actions that were taken.

    Observations, and rewards times the probability that the episode is not over by then, from W = T - K + 1 starts.
    Each member goes on from its own mean; the ensemble's is the mean of theirs.
    """
    num_starts = len(trajectory.reward) - num_steps + 1
    actions = windows(trajectory.action, num_steps)
    starts = trajectory.observation[:num_starts].astype(jnp.float32)

    def imagine(member: Member) -> tuple[Array, Array]:
        def step(carry: tuple[Array, Array], action: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            observation, running = carry
            outputs = jax.vmap(jax.vmap(member.predict))(observation, action)
            after = outputs.mean[..., :-1]
            over = jax.vmap(jax.vmap(member.termination_probability))(outputs)
            return (after, running * (1.0 - over)), (after, running * outputs.mean[..., -1])

        return jax.lax.scan(step, (starts, jnp.ones(starts.shape[:2])), actions)[1]

    observations, rewards = jax.vmap(imagine)(members)
    return observations.mean(0), rewards.mean(0)


def windows(x: Array, num_steps: int) -> Array:
    """x_t, ..., x_{t+K-1} for each t that has them: [T, ...] -> [K, T - K + 1, ...]."""
    return jnp.stack([x[k : len(x) - num_steps + 1 + k] for k in range(num_steps)])


def k_step_error(members: Member, trajectory: Transition, num_steps: int) -> Float[Array, "K"]:
    """The root mean squared error of `open_loop` after k = 1 ... K steps, in standard deviations of the observations.

    1 is what somebody makes who always says the mean observation.
    """
    imagined, _ = open_loop(members, trajectory, num_steps)
    truth, done = windows(trajectory.next_observation, num_steps), windows(trajectory.done, num_steps)
    running = jnp.cumsum(done, axis=0) - done == 0  # no episode ended on the way
    std = trajectory.next_observation.std((0, 1))
    squares = ((imagined - truth) / jnp.where(std > 1e-6, std, 1.0)[None, None, None]) ** 2
    weight = running / jnp.maximum(running.sum((1, 2), keepdims=True), 1)
    return jnp.sqrt((squares.mean(-1) * weight).sum((1, 2)))


def promised_return(
    members: Member, trajectory: Transition, num_steps: int, discount: float | Float[Array, ""] = 1.0
) -> Float[Array, "T N"]:
    """sum_{k < K} discount^k r_{t+k+1} of `open_loop`; NaN where the trajectory has fewer than K actions left."""
    _, rewards = open_loop(members, trajectory, num_steps)
    total = jnp.tensordot(discount ** jnp.arange(num_steps), rewards, 1)
    return jnp.concatenate([total, jnp.full((num_steps - 1, total.shape[1]), jnp.nan)])


def exploitation(
    promised: Float[Array, "T N"], trajectory: Transition, num_steps: int, discount: float | Float[Array, ""] = 1.0
) -> Float[Array, ""]:
    """What a planner promised for the next `num_steps` steps beyond what came in, the mean over all t; NaN for none.

    promised_t - sum_{k < K} discount^k r_{t+k+1}. Above 0, the planner has found plans that only its model likes: it
    exploits the model's errors. Counted are the steps from which the trajectory shows K more, or a termination; where
    nothing was promised (NaN) nothing is counted.
    """
    came_in, _, last = look_ahead(trajectory, discount, num_steps)
    time = jnp.arange(len(promised))[:, None]
    ended = jnp.take_along_axis(trajectory.terminated, last, axis=0)
    counted = ((last - time == num_steps - 1) | ended) & ~jnp.isnan(promised)
    difference = jnp.where(counted, promised - came_in, 0.0)
    return jnp.where(counted.any(), difference.sum() / counted.sum(), jnp.nan)


def raw_levels(transform: Float[Array, "B D"], levels: Float[np.ndarray | Array, "L"] = LEVELS) -> Float[Array, "L D"]:
    """Which central intervals to ask the ensemble for, so that they cover `levels`: recalibration, number by number.

    Of transitions set apart, the quantiles of how central the truths are (Kuleshov et al. 2018; split conformal). Where
    the world has no noise, what is left to a Gaussian is the network's own error, which is not normally distributed.
    """
    return jnp.quantile(2.0 * jnp.abs(transform - 0.5), jnp.asarray(levels), axis=0)
