"""What sequences are worth against a loop in plain Python; what they are drawn from."""

from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.planning.sequences import alone, draw, evaluate
from parnassus.types import BadInput, Key, Step, pytree

GAMMA = 0.9


class Place(NamedTuple):
    x: jax.Array
    time: jax.Array


@pytree
class Walk:
    """Moves by the action (in [-2, 2]) times a gain, and by chance; over beyond a wall; cut short after 2 steps."""

    gain: Any
    wall: Any
    noise: Any = 0.0

    @property
    def action_space(self) -> gymnasium.Space:
        return spaces.Box(-2.0, 2.0, (1,), np.float32)

    def step(self, state: Place, action: jax.Array, key: Key) -> Step:
        x = state.x + self.gain * action[0] + self.noise * jax.random.normal(key)
        over = x > self.wall
        # Beyond the wall nothing is a number, and must not count.
        reward = jnp.where(state.x > self.wall, jnp.nan, x - action[0] ** 2)
        return Step(Place(x, state.time + 1), x[None], reward, over, state.time >= 1)


def by_hand(gain: float, wall: float, x: float, actions: np.ndarray, tail: bool) -> float:
    total, weight = 0.0, 1.0
    for action in 2.0 * np.clip(actions[:, 0], -1.0, 1.0):
        x += gain * action
        total += weight * (x - action**2)
        weight *= GAMMA
        if x > wall:
            return total
    return total + weight * 10.0 * x * tail


@pytest.mark.parametrize("tail", [False, True])
def test_against_a_loop(tail: bool) -> None:
    """Of two models that end some sequences; actions beyond their bounds are clipped; truncation is no end."""
    models = Walk(jnp.array([0.5, -1.0]), jnp.array([0.6, 0.8]), jnp.zeros(2))
    actions = np.random.default_rng(0).normal(0.0, 0.8, (40, 5, 1)).astype(np.float32)
    state = Place(jnp.float32(0.2), jnp.int32(0))
    value = (lambda observation: 10.0 * observation[0]) if tail else None
    worth = jax.jit(lambda a: evaluate(models, state, a, jax.random.key(0), GAMMA, 2, value))(actions)
    each = [[by_hand(g, w, 0.2, row, tail) for g, w in ((0.5, 0.6), (-1.0, 0.8))] for row in actions]
    np.testing.assert_allclose(worth, np.mean(each, axis=1), rtol=1e-4, atol=1e-5)


def test_particles_average_over_chance() -> None:
    """All sequences meet the same chances; the mean of many particles is the expectation."""
    model = alone(Walk(0.5, 1e9, 1.0))
    state = Place(jnp.float32(0.0), jnp.int32(0))
    actions = jnp.array([0.0, 0.0, 0.3])[:, None, None] * jnp.ones((3, 4, 1))
    few, many = (evaluate(model, state, actions, jax.random.key(1), 1.0, p) for p in (2, 4_000))
    assert few[0] == few[1] != 0.0
    wanted = sum(0.3 * t - 0.36 for t in (1, 2, 3, 4))
    np.testing.assert_allclose(few[2] - few[0], wanted, rtol=1e-4)
    np.testing.assert_allclose(many, [0.0, 0.0, wanted], atol=4 * np.sqrt(30 / 4_000))


def test_a_model_that_explodes_is_worth_the_least() -> None:
    model = alone(Walk(jnp.inf, jnp.inf))
    worth = evaluate(model, Place(jnp.float32(0.0), jnp.int32(0)), jnp.zeros((1, 2, 1)), jax.random.key(0), 1.0)
    assert worth[0] == jnp.finfo(jnp.float32).min


@pytest.mark.parametrize(
    ("space", "values"),
    [
        (spaces.Discrete(3, start=5), {0, 1, 2}),
        (spaces.MultiDiscrete([2, 4]), {0, 1, 2, 3}),
    ],
)
def test_discrete_actions_are_drawn_from_0(space: gymnasium.Space, values: set) -> None:
    drawn = draw(space, jax.random.key(0), (200, 3))
    assert drawn.shape == (200, 3, *space.shape) and set(np.unique(drawn)) == values
    if space.shape:
        assert int(drawn[..., 0].max()) == 1


def test_real_actions_are_drawn_evenly() -> None:
    drawn = draw(spaces.Box(-5, 7, (2,), np.float32), jax.random.key(0), (2_000, 3))
    assert drawn.shape == (2_000, 3, 2)
    np.testing.assert_allclose(np.histogram(drawn, 4, (-1, 1))[0] / drawn.size, 0.25, atol=0.02)


def test_other_spaces_are_refused() -> None:
    with pytest.raises(BadInput, match="Box, Discrete or MultiDiscrete, not from MultiBinary"):
        draw(spaces.MultiBinary(3), jax.random.key(0), (2, 2))
