"""Returns and advantages: one equation per function.

Arrays are time-major [T, N]. `next_value` is V(o_{t+1}) of the true successor, also where an episode ended, so that:

- `terminated`: the successor is absorbing and worth 0, whatever `next_value` holds there;
- `truncated`, and the last row of the trajectory: the successor is worth `next_value`, and no trace runs past it.

Every recurrence is one reversed `lax.scan`. On two CPU cores it takes 26 us for T = 2048, N = 8 and compiles in 0.1 s;
`lax.associative_scan` takes 200 us and 1 s, and unrolling makes the loop slower, not faster.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

Scalar = float | Float[Array, ""]


def discounted_returns(
    reward: Float[Array, "T N"], terminated: Bool[Array, "T N"], truncated: Bool[Array, "T N"], discount: Scalar
) -> Float[Array, "T N"]:
    """Monte Carlo returns: the rewards to go until the episode ends. [T, N]

    G_t = r_{t+1} + gamma G_{t+1}, restarted where an episode ends (Sutton and Barto 2018, eq. 3.9). Where the
    trajectory ends first, G_t lacks what came after: `in_finished_episode` tells which steps are whole.
    """
    return _discounted_sum(reward, discount * ~(terminated | truncated))


def in_finished_episode(terminated: Bool[Array, "T N"], truncated: Bool[Array, "T N"]) -> Bool[Array, "T N"]:
    """Whether the episode that step t belongs to ends, for either reason, inside the trajectory. [T, N]"""
    return lax.cummax((terminated | truncated).astype(jnp.int32), axis=0, reverse=True) == 1


def n_step_returns(
    reward: Float[Array, "T N"],
    next_value: Float[Array, "T N"],
    terminated: Bool[Array, "T N"],
    truncated: Bool[Array, "T N"],
    discount: Scalar,
    n: int,
) -> Float[Array, "T N"]:
    """n-step returns (Sutton and Barto 2018, eq. 7.1). [T, N]

    G_t = r_{t+1} + gamma r_{t+2} + ... + gamma^{m-1} r_{t+m} + gamma^m V(o_{t+m}), where m is n or, if that is shorter,
    the way to the end of the episode or of the trajectory. Computed as m one-step look-aheads of each other.
    Raises ValueError if n is less than 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    one_step = reward + discount * jnp.where(terminated, 0.0, next_value)
    ends = (terminated | truncated).at[-1].set(True)

    def look_one_step_further(_: Array, returns: Float[Array, "T N"]) -> Float[Array, "T N"]:
        return jnp.where(ends, one_step, reward + discount * jnp.roll(returns, -1, axis=0))

    return lax.fori_loop(0, min(n, len(reward)) - 1, look_one_step_further, one_step)


def lambda_returns(
    reward: Float[Array, "T N"],
    next_value: Float[Array, "T N"],
    terminated: Bool[Array, "T N"],
    truncated: Bool[Array, "T N"],
    discount: Scalar,
    lambda_: Scalar,
) -> Float[Array, "T N"]:
    """The TD(lambda) mixture of all n-step returns (Sutton and Barto 2018, eq. 12.20). [T, N]

    G_t = r_{t+1} + gamma ((1 - lambda) V(o_{t+1}) + lambda G_{t+1}) inside an episode, and r_{t+1} + gamma V(o_{t+1})
    at its end and at the trajectory's.
    """
    trace = (lambda_ * ~(terminated | truncated)).at[-1].set(0.0)
    one_step = reward + discount * (1 - trace) * jnp.where(terminated, 0.0, next_value)
    return _discounted_sum(one_step, discount * trace)


def generalized_advantages(
    reward: Float[Array, "T N"],
    value: Float[Array, "T N"],
    next_value: Float[Array, "T N"],
    terminated: Bool[Array, "T N"],
    truncated: Bool[Array, "T N"],
    discount: Scalar,
    gae_lambda: Scalar,
) -> Float[Array, "T N"]:
    """GAE(gamma, lambda): A_t = sum_l (gamma lambda)^l delta_{t+l} (Schulman et al. 2016, eq. 16). [T, N]

    delta_t = r_{t+1} + gamma V(o_{t+1}) - V(o_t), and the sum stops where the episode or the trajectory does. `value`
    is V(o_t). Where V(o_{t+1}) is both next_value[t] and value[t + 1], advantages + value are the lambda-returns.
    """
    delta = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    return _discounted_sum(delta, discount * gae_lambda * ~(terminated | truncated))


def _discounted_sum(x: Float[Array, "T N"], discount: Float[Array, "T N"]) -> Float[Array, "T N"]:
    """y_t = x_t + discount_t y_{t+1}, with y_T = 0."""

    def step(following: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        x_t, discount_t = row
        y_t = x_t + discount_t * following
        return y_t, y_t

    return lax.scan(step, jnp.zeros_like(x[0]), (x, discount), reverse=True)[1]
