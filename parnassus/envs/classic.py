"""Cart-poles and a pendulum in JAX: CartPole-v1 and Pendulum-v1 with Gymnasium's equations, time limits included, to
single precision; a cart-pole pushed by any force; and the swing-up of the DeepMind control suite.

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

    If `continuous`, an action is a share of the force, in [-1, 1]. The episode terminates beyond 2.4 m or 12 degrees
    and is truncated after `max_steps`; both may happen at once.
    Barto, Sutton and Anderson (1983); equations of motion after https://coneural.org/florian/papers/05_cart_pole.pdf.
    """

    gravity: float = 9.8  # m/s^2
    cart_mass: float = 1.0  # kg
    pole_mass: float = 0.1  # kg
    half_length: float = 0.5  # m, of the pole
    force: float = 10.0  # N
    time_step: float = 0.02  # s
    max_steps: int = 500
    continuous: bool = False

    x_limit: ClassVar[float] = 2.4  # m
    theta_limit: ClassVar[float] = 12 * 2 * np.pi / 360  # rad

    @property
    def observation_space(self) -> gymnasium.Space:
        """(x, x_dot, theta, theta_dot); bounded at twice the limits, so that the last state is still inside."""
        high = np.array([2 * self.x_limit, np.inf, 2 * self.theta_limit, np.inf], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> gymnasium.Space:
        """0: left, 1: right; or the share of the force, shape [1]."""
        return spaces.Box(-1.0, 1.0, (1,), np.float32) if self.continuous else spaces.Discrete(2)

    def reset(self, key: Key) -> tuple[CartPoleState, Float[Array, "4"]]:
        """Each of the four numbers uniform in [-0.05, 0.05]."""
        observation = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        x, x_dot, theta, theta_dot = observation
        return CartPoleState(x, x_dot, theta, theta_dot, jnp.zeros((), jnp.int32)), observation

    def step(self, state: CartPoleState, action: Int[Array, ""] | Float[Array, "1"], key: Key) -> Step:
        """One Euler step; `key` is not used."""
        x, x_dot, theta, theta_dot, time = state
        if self.continuous:
            force = self.force * jnp.clip(action[0], -1.0, 1.0)
        else:
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


@pytree
class CartPoleSwingUp:
    """Swing a hanging pole up and keep it there: the control suite's "cartpole swingup" (Tassa et al. 2018).

    A step pays up to 1: for the pole's height, a cart near the middle, little force and a slow pole. The episode never
    terminates; it is truncated after `max_steps` steps of 10 ms. The equations are those of MuJoCo's model, by its
    Runge-Kutta method; the ends of the track stop the cart at once, where MuJoCo's are springs.
    """

    gravity: float = 9.81  # m/s^2
    cart_mass: float = 1.0  # kg
    pole_mass: float = 0.1  # kg
    half_length: float = 0.5  # m, from the hinge to the pole's centre of mass
    inertia: float = 0.0094246  # kg m^2, about its centre: a capsule, 1 m between the centres of its caps of 45 mm
    force: float = 10.0  # N, for an action of 1
    cart_damping: float = 5e-4  # N s/m
    hinge_damping: float = 2e-6  # N m s
    max_steps: int = 1000
    repeat: int = 1  # steps for each action; their rewards are summed (Hafner et al. 2019 repeat it 8 times)

    x_limit: ClassVar[float] = 1.8  # m
    time_step: ClassVar[float] = 0.01  # s

    @property
    def observation_space(self) -> gymnasium.Space:
        """(x, cos theta, sin theta, x_dot, theta_dot); theta is 0 upright."""
        high = np.array([np.inf, 1.0, 1.0, np.inf, np.inf], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> gymnasium.Space:
        """The share of the force, shape [1]."""
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, key: Key) -> tuple[CartPoleState, Float[Array, "5"]]:
        """The pole hangs and all is still, up to normal noise of 0.01."""
        x, x_dot, theta, theta_dot = 0.01 * jax.random.normal(key, (4,))
        state = CartPoleState(x, x_dot, jnp.pi + theta, theta_dot, jnp.zeros((), jnp.int32))
        return state, _swing_up_observation(state)

    def step(self, state: CartPoleState, action: Float[Array, "1"], key: Key) -> Step:
        """`repeat` Runge-Kutta steps; `key` is not used."""
        share = jnp.clip(action[0], -1.0, 1.0)

        def one_step(state: CartPoleState, _: None) -> tuple[CartPoleState, Array]:
            state = self._integrate(state, self.force * share)
            return state, self._reward(state, share)

        state, reward = jax.lax.scan(one_step, state, None, self.repeat)
        return Step(
            state=state,
            observation=_swing_up_observation(state),
            reward=reward.sum(),
            terminated=jnp.zeros((), bool),
            truncated=state.time >= self.max_steps,
        )

    def _integrate(self, state: CartPoleState, force: Float[Array, ""]) -> CartPoleState:
        """The state 10 ms later."""
        dt, here = self.time_step, jnp.stack(state[:4])
        k1 = self._derivative(here, force)
        k2 = self._derivative(here + dt / 2 * k1, force)
        k3 = self._derivative(here + dt / 2 * k2, force)
        k4 = self._derivative(here + dt * k3, force)
        x, x_dot, theta, theta_dot = here + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        stopped = jnp.abs(x) > self.x_limit
        return CartPoleState(
            jnp.clip(x, -self.x_limit, self.x_limit), jnp.where(stopped, 0.0, x_dot), theta, theta_dot, state.time + 1
        )

    def _derivative(self, here: Float[Array, "4"], force: Float[Array, ""]) -> Float[Array, "4"]:
        """Lagrange's equations: two accelerations from a system of two equations."""
        _, x_dot, theta, theta_dot = here
        cos, sin, moment = jnp.cos(theta), jnp.sin(theta), self.pole_mass * self.half_length
        push = force - self.cart_damping * x_dot + moment * theta_dot**2 * sin
        turn = moment * self.gravity * sin - self.hinge_damping * theta_dot
        mass, inertia, coupling = (
            self.cart_mass + self.pole_mass,
            self.inertia + moment * self.half_length,
            moment * cos,
        )
        determinant = mass * inertia - coupling**2
        return jnp.stack(
            [
                x_dot,
                (inertia * push - coupling * turn) / determinant,
                theta_dot,
                (mass * turn - coupling * push) / determinant,
            ]
        )

    @staticmethod
    def _reward(state: CartPoleState, share: Float[Array, ""]) -> Float[Array, ""]:
        """The control suite's product of four; each is 1 at its best, and the last three never less than a share."""
        tenth = np.log(10.0)  # what falls to a tenth at its margin, as exp(-tenth (x / margin)^2)
        upright = (jnp.cos(state.theta) + 1) / 2
        centered = (1 + jnp.exp(-tenth * (state.x / 2) ** 2)) / 2
        gentle = (4 + jnp.maximum(1 - share**2, 0.0)) / 5
        slow = (1 + jnp.exp(-tenth * (state.theta_dot / 5) ** 2)) / 2
        return upright * centered * gentle * slow


def _swing_up_observation(state: CartPoleState) -> Float[Array, "5"]:
    return jnp.stack([state.x, jnp.cos(state.theta), jnp.sin(state.theta), state.x_dot, state.theta_dot])
