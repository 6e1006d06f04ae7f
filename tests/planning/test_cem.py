"""The cross-entropy method and path integrals: known optima, the Riccati solution, warm starts, particles, weights."""

from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from scipy.linalg import solve_discrete_are

from parnassus.envs.classic import Pendulum
from parnassus.planning.cem import CEM, MPPI
from parnassus.planning.sequences import alone
from parnassus.types import BadInput, Key, Step, pytree

NEVER = np.zeros((), bool)


@pytree
class Landscape:
    """One step, paid by a function of the action and of chance."""

    scale: Any
    height: Callable  # (action, noise) -> reward
    size: int

    @property
    def action_space(self) -> gymnasium.Space:
        return spaces.Box(-1.0, 1.0, (self.size,), np.float32)

    def step(self, state: jax.Array, action: jax.Array, key: Key) -> Step:
        return Step(state, state, self.scale * self.height(action, jax.random.normal(key)), NEVER, NEVER)


def bowl(action: jax.Array, noise: jax.Array) -> jax.Array:
    return -((action - jnp.array([0.5, -0.25, 0.8])) ** 2).sum()


def valley(action: jax.Array, noise: jax.Array) -> jax.Array:
    """Rosenbrock's, with its optimum at (0.5, 0.25)."""
    x, y = 2.0 * action[0], 4.0 * action[1]
    return -((1 - x) ** 2 + 10 * (y - x**2) ** 2)


def hills(action: jax.Array, noise: jax.Array) -> jax.Array:
    """Rastrigin's: a hilltop every 0.25, the highest at (0.25, 0.25)."""
    x = 4.0 * action - 1.0
    return -(x**2 - 2 * jnp.cos(2 * jnp.pi * x) + 2).sum()


def edge(action: jax.Array, noise: jax.Array) -> jax.Array:
    return action.sum()


@pytest.mark.parametrize(
    ("height", "optimum"),
    [(bowl, [0.5, -0.25, 0.8]), (valley, [0.5, 0.25]), (hills, [0.25, 0.25]), (edge, [1.0, 1.0])],
)
def test_known_optima(height: Callable, optimum: list[float]) -> None:
    planner = CEM(horizon=1, candidates=300, elites=30, iterations=15, least_std=1e-3)
    model = Landscape(1.0, height, len(optimum))
    memory = planner.initial_memory(model.action_space, 1)[0]
    action, _, metrics = jax.jit(planner)(alone(model), jnp.zeros(()), memory, jax.random.key(0))
    np.testing.assert_allclose(action, optimum, atol=5e-3)
    assert metrics["plan/value"] == pytest.approx(float(height(jnp.array(optimum), 0.0)), abs=1e-3)


A, B = np.array([[1.0, 0.2], [0.0, 1.0]]), np.array([[0.0], [0.2]])
Q, R = np.diag([1.0, 0.1]), np.array([[0.1]])


@pytree
class Regulator:
    """x' = A x + B u at the cost x Q x + u R u; actions without bounds."""

    gain: Any = 1.0

    @property
    def action_space(self) -> gymnasium.Space:
        return spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def step(self, state: jax.Array, action: jax.Array, key: Key) -> Step:
        x, u = state, self.gain * action
        after = jnp.asarray(A, jnp.float32) @ x + jnp.asarray(B, jnp.float32) @ u
        return Step(
            after, after, -(x @ jnp.asarray(Q, jnp.float32) @ x + u @ jnp.asarray(R, jnp.float32) @ u), NEVER, NEVER
        )


def cost_of_control(planner: Any, steps: int) -> float:
    """Acting by the planner from (1, 0), and the regulator's cost-to-go at the end."""
    model, cost_to_go = Regulator(), jnp.asarray(solve_discrete_are(A, B, Q, R), jnp.float32)
    value = lambda x: -(x @ cost_to_go @ x)  # noqa: E731

    def step(carry: tuple, _: None) -> tuple:
        state, memory, key = carry
        key, plan_key, step_key = jax.random.split(key, 3)
        action, memory, _ = planner(alone(model), state, memory, plan_key, value)
        after = model.step(state, action, step_key)
        return (after.state, memory, key), -after.reward

    @jax.jit
    def run(key: Key) -> jax.Array:
        start = jnp.array([1.0, 0.0]), planner.initial_memory(model.action_space, 1)[0], key
        (state, _, _), cost = jax.lax.scan(step, start, length=steps)
        return cost.sum() - value(state)

    return float(run(jax.random.key(0)))


@pytest.mark.parametrize(
    "planner",
    [
        CEM(horizon=8, candidates=300, elites=20, iterations=8, least_std=1e-2),
        MPPI(horizon=8, candidates=500, iterations=4, temperature=0.02, first_std=0.3),
    ],
)
def test_a_regulator_costs_what_riccati_says(planner: Any) -> None:
    """Within 1% of x P x, which no control can undercut."""
    least = solve_discrete_are(A, B, Q, R)[0, 0]
    assert least * 0.9999 <= cost_of_control(planner, 20) <= 1.01 * least


def test_a_warm_start_helps() -> None:
    """Pendulum, 100 steps, one iteration of 30 candidates: with the remembered plan, and without one."""
    env, planner = Pendulum(), CEM(horizon=15, candidates=30, elites=5, iterations=1)

    @jax.jit
    def episodes(key: Key, remember: jax.Array) -> jax.Array:
        key, reset_key = jax.random.split(key)
        states, _ = jax.vmap(env.reset)(jax.random.split(reset_key, 8))
        fresh = planner.initial_memory(env.action_space, 8)
        plan = jax.vmap(lambda state, memory, key: planner(alone(env), state, memory, key))

        def step(carry: tuple, _: None) -> tuple:
            states, memory, key = carry
            key, plan_key, step_key = jax.random.split(key, 3)
            actions, memory, _ = plan(states, memory, jax.random.split(plan_key, 8))
            after = jax.vmap(env.step)(states, 2.0 * actions, jax.random.split(step_key, 8))
            return (after.state, jnp.where(remember, memory, fresh), key), after.reward

        _, reward = jax.lax.scan(step, (states, fresh, key), length=100)
        return reward.sum(0)

    warm, cold = (np.asarray(episodes(jax.random.key(0), remember)) for remember in (True, False))
    assert warm.mean() > cold.mean() + 20  # -232 and -381


def gamble(action: jax.Array, noise: jax.Array) -> jax.Array:
    return 5.0 * noise * action[0] - (action[0] - 0.2) ** 2


def test_particles_keep_it_from_gambling() -> None:
    """Chance pays in proportion to the action and to nothing on average: one particle takes it for a promise."""
    action = {}
    for particles in (1, 500):
        planner = CEM(horizon=1, candidates=60, elites=6, iterations=6, particles=particles)
        plan = jax.jit(planner)
        action[particles], _, _ = plan(
            alone(Landscape(1.0, gamble, 1)), jnp.zeros(()), jnp.zeros((1, 1)), jax.random.key(3)
        )
    assert abs(float(action[1][0]) - 0.2) > 0.4 and abs(float(action[500][0]) - 0.2) < 0.15


def test_models_are_averaged() -> None:
    """Two models that disagree: the plan is best for both together."""
    planner = CEM(horizon=1, candidates=200, elites=20)
    models = Landscape(jnp.array([1.0, -3.0]), edge, 2)  # one says as much as you can, the other three times as little
    action, _, metrics = jax.jit(planner)(models, jnp.zeros(()), jnp.zeros((1, 2)), jax.random.key(0))
    np.testing.assert_allclose(action, [-1.0, -1.0], atol=1e-3)
    assert metrics["plan/value"] == pytest.approx(2.0)


def test_the_plan_moves_on() -> None:
    """What is remembered begins with the second action; what would come after the last is unknown, so 0."""
    planner = CEM(horizon=3, candidates=100, elites=10)
    action, memory, _ = jax.jit(planner)(
        alone(Landscape(1.0, edge, 1)), jnp.zeros(()), jnp.zeros((3, 1)), jax.random.key(0)
    )
    np.testing.assert_allclose(jnp.concatenate([action, memory[:, 0]]), [1.0, 1.0, 1.0, 0.0], atol=1e-3)


def test_the_elites_by_hand() -> None:
    draw = np.random.default_rng(0)
    actions, worth = draw.normal(size=(20, 4, 2)).astype(np.float32), draw.normal(size=20).astype(np.float32)
    mean, std = np.full((4, 2), 0.3, np.float32), np.full((4, 2), 2.0, np.float32)
    planner = CEM(candidates=20, elites=5, momentum=0.25, least_std=0.9)
    new_mean, new_std = planner.refine(*map(jnp.asarray, (actions, worth, mean, std)))
    elites = actions[np.argsort(worth)[-5:]]
    np.testing.assert_allclose(new_mean, 0.25 * 0.3 + 0.75 * elites.mean(0), atol=1e-6)
    np.testing.assert_allclose(new_std, np.maximum(0.25 * 2.0 + 0.75 * elites.std(0), 0.9), atol=1e-6)


def test_the_weights_of_path_integrals_by_hand() -> None:
    draw = np.random.default_rng(1)
    actions, worth = draw.normal(size=(20, 4, 2)).astype(np.float32), draw.normal(size=20).astype(np.float32)
    std = jnp.full((4, 2), 0.7)
    weights = np.exp(worth / 0.5) / np.exp(worth / 0.5).sum()
    mean, same = MPPI(temperature=0.5).refine(jnp.asarray(actions), jnp.asarray(worth), jnp.zeros((4, 2)), std)
    np.testing.assert_allclose(mean, (weights[:, None, None] * actions).sum(0), atol=1e-5)
    np.testing.assert_array_equal(same, std)
    coldest, _ = MPPI(temperature=0.0).refine(jnp.asarray(actions), jnp.asarray(worth), jnp.zeros((4, 2)), std)
    np.testing.assert_allclose(coldest, actions[worth.argmax()], atol=1e-6)


def test_what_they_cannot_plan_in() -> None:
    with pytest.raises(BadInput, match="cross-entropy method needs continuous .* not Discrete"):
        CEM().check(spaces.Discrete(2))
    with pytest.raises(BadInput, match="path integral control needs continuous .* not MultiDiscrete"):
        MPPI().check(spaces.MultiDiscrete([2, 2]))
    with pytest.raises(BadInput, match=r"elites must be at most candidates \(10\), not 100"):
        CEM(candidates=10).check(spaces.Box(-1, 1, (2,)))
