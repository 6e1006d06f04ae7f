"""CartPole-v1 and Pendulum-v1 in JAX: Gymnasium's equations, time limits included, to single precision.

The physical constants are data (sweep them with `vmap`); what the spaces are made of is fixed.
"""

from typing import ClassVar, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Float, Int

from parnassus.types import Key, Step, pytree


class CartPoleState(NamedTuple):
    """Metres, radians, seconds."""

    x: Float[Array, ""]
    x_dot: Float[Array, ""]
    theta: Float[Array, ""]
    theta_dot: Float[Array, ""]
    time: Int[Array, ""]  # steps since reset


@pytree
class CartPole:
    """Balance a pole on a cart that is pushed left (action 0) or right (1). Reward 1 on every step, the last included.

    The episode terminates beyond 2.4 m or 12 degrees and is truncated after `max_steps`; both may happen at once.
    Barto, Sutton and Anderson (1983); equations of motion after https://coneural.org/florian/papers/05_cart_pole.pdf.
    """

    gravity: float = 9.8  # m/s^2
    cart_mass: float = 1.0  # kg
    pole_mass: float = 0.1  # kg
    half_length: float = 0.5  # m, of the pole
    force: float = 10.0  # N
    time_step: float = 0.02  # s
    max_steps: int = 500

    x_limit: ClassVar[float] = 2.4  # m
    theta_limit: ClassVar[float] = 12 * 2 * np.pi / 360  # rad

    @property
    def observation_space(self) -> gymnasium.Space:
        """(x, x_dot, theta, theta_dot); bounded at twice the limits, so that the last state is still inside."""
        high = np.array([2 * self.x_limit, np.inf, 2 * self.theta_limit, np.inf], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> gymnasium.Space:
        """0: left, 1: right."""
        return spaces.Discrete(2)

    def reset(self, key: Key) -> tuple[CartPoleState, Float[Array, "4"]]:
        """Each of the four numbers uniform in [-0.05, 0.05]."""
        observation = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        x, x_dot, theta, theta_dot = observation
        return CartPoleState(x, x_dot, theta, theta_dot, jnp.zeros((), jnp.int32)), observation

    def step(self, state: CartPoleState, action: Int[Array, ""], key: Key) -> Step:
        """One Euler step; `key` is not used."""
        x, x_dot, theta, theta_dot, time = state
        force = jnp.where(action == 1, self.force, -self.force)
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        mass = self.cart_mass + self.pole_mass
        push = (force + self.pole_mass * self.half_length * theta_dot**2 * sin) / mass
        theta_acc = (self.gravity * sin - cos * push) / (
            self.half_length * (4.0 / 3.0 - self.pole_mass * cos**2 / mass)
        )
        x_acc = push - self.pole_mass * self.half_length * theta_acc * cos / mass

        # Euler, as in Gymnasium: positions move by the old velocities.
        x, x_dot = x + self.time_step * x_dot, x_dot + self.time_step * x_acc
        theta, theta_dot = theta + self.time_step * theta_dot, theta_dot + self.time_step * theta_acc
        after = CartPoleState(x, x_dot, theta, theta_dot, time + 1)
        return Step(
            state=after,
            observation=jnp.stack([x, x_dot, theta, theta_dot]),
            reward=jnp.ones(()),
            terminated=(jnp.abs(x) > self.x_limit) | (jnp.abs(theta) > self.theta_limit),
            truncated=after.time >= self.max_steps,
        )


class PendulumState(NamedTuple):
    """Radians, seconds; the angle is 0 upright and is not wrapped."""

    theta: Float[Array, ""]
    theta_dot: Float[Array, ""]
    time: Int[Array, ""]  # steps since reset


@pytree
class Pendulum:
    """Swing a pendulum up by a torque in [-2, 2] N m; reward -(angle^2 + 0.1 speed^2 + 0.001 torque^2).

    It never terminates; the episode is truncated after `max_steps`.
    """

    gravity: float = 10.0  # m/s^2
    mass: float = 1.0  # kg
    length: float = 1.0  # m
    time_step: float = 0.05  # s
    max_steps: int = 200

    max_speed: ClassVar[float] = 8.0  # rad/s
    max_torque: ClassVar[float] = 2.0  # N m

    @property
    def observation_space(self) -> gymnasium.Space:
        """(cos theta, sin theta, theta_dot)."""
        high = np.array([1.0, 1.0, self.max_speed], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> gymnasium.Space:
        """The torque, shape [1]."""
        return spaces.Box(-self.max_torque, self.max_torque, (1,), np.float32)

    def reset(self, key: Key) -> tuple[PendulumState, Float[Array, "3"]]:
        """Any angle, and a speed uniform in [-1, 1]."""
        theta, theta_dot = jax.random.uniform(key, (2,), minval=-1.0) * jnp.array([jnp.pi, 1.0])
        return PendulumState(theta, theta_dot, jnp.zeros((), jnp.int32)), _pendulum_observation(theta, theta_dot)

    def step(self, state: PendulumState, action: Float[Array, "1"], key: Key) -> Step:
        """One semi-implicit Euler step; the torque is clipped to its bounds; `key` is not used."""
        theta, theta_dot, time = state
        torque = jnp.clip(action[0], -self.max_torque, self.max_torque)
        angle = (theta + jnp.pi) % (2 * jnp.pi) - jnp.pi
        cost = angle**2 + 0.1 * theta_dot**2 + 0.001 * torque**2

        acceleration = 1.5 * self.gravity / self.length * jnp.sin(theta) + 3.0 / (self.mass * self.length**2) * torque
        theta_dot = jnp.clip(theta_dot + acceleration * self.time_step, -self.max_speed, self.max_speed)
        after = PendulumState(theta + theta_dot * self.time_step, theta_dot, time + 1)
        return Step(
            state=after,
            observation=_pendulum_observation(after.theta, after.theta_dot),
            reward=-cost,
            terminated=jnp.zeros((), bool),
            truncated=after.time >= self.max_steps,
        )


def _pendulum_observation(theta: Float[Array, ""], theta_dot: Float[Array, ""]) -> Float[Array, "3"]:
    return jnp.stack([jnp.cos(theta), jnp.sin(theta), theta_dot])
