"""Random shooting against trying every sequence, for Discrete and MultiDiscrete actions, and what it refuses."""

import itertools
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.envs.classic import Pendulum
from parnassus.envs.mdp import FiniteMDP, MDPState
from parnassus.planning.random_shooting import RandomShooting
from parnassus.planning.sequences import alone
from parnassus.types import BadInput, Key, Step, pytree


def deterministic_mdp() -> FiniteMDP:
    """Seven states, three actions, some ends: drawn at random."""
    draw = np.random.default_rng(3)
    shape = (7, 3, 1)
    return FiniteMDP.create(
        draw.integers(0, 7, shape), np.ones(shape), draw.normal(0, 1, shape), draw.random(shape) < 0.2, np.eye(7)[0]
    )


def best_by_brute_force(mdp: FiniteMDP, s: int, horizon: int, discount: float) -> tuple[float, int]:
    reward, terminated, next_state = (np.asarray(x)[..., 0] for x in (mdp.reward, mdp.terminated, mdp.next_state))
    found = []
    for actions in itertools.product(range(3), repeat=horizon):
        here, total, weight = s, 0.0, 1.0
        for a in actions:
            total += weight * float(reward[here, a])
            weight *= discount
            if terminated[here, a]:
                break
            here = int(next_state[here, a])
        found.append((total, actions[0]))
    return max(found)


def test_against_every_sequence() -> None:
    mdp = deterministic_mdp()
    planner = RandomShooting(horizon=4, candidates=800, discount=0.9)
    planner.check(mdp.action_space)
    plan = jax.jit(jax.vmap(lambda state, key: planner(alone(mdp), state, (), key)))
    states = MDPState(jnp.arange(7, dtype=jnp.int32), jnp.zeros(7, jnp.int32))
    actions, memory, metrics = plan(states, jax.random.split(jax.random.key(0), 7))
    wanted = [best_by_brute_force(mdp, s, 4, 0.9) for s in range(7)]
    np.testing.assert_allclose(metrics["plan/value"], [value for value, _ in wanted], rtol=1e-5)
    assert actions.tolist() == [action for _, action in wanted] and memory == ()


@pytree
class Locks:
    """Pays 1 for each of two dials that is set right."""

    wanted: Any

    @property
    def action_space(self) -> gymnasium.Space:
        return spaces.MultiDiscrete([3, 4], start=[10, 20])

    def step(self, state: jax.Array, action: jax.Array, key: Key) -> Step:
        no = jnp.zeros((), bool)
        return Step(state, state, (action == self.wanted).sum().astype(jnp.float32), no, no)


def test_several_discrete_dimensions() -> None:
    planner = RandomShooting(horizon=1, candidates=300)
    action, _, metrics = planner(alone(Locks(jnp.array([12, 21]))), jnp.zeros(()), (), jax.random.key(0))
    assert action.tolist() == [2, 1] and metrics["plan/value"] == 2.0


def test_a_terminal_value_counts() -> None:
    """Pendulum, one step: with a value that asks for speed, it pushes as hard as it can."""
    env = Pendulum()
    state, _ = env.reset(jax.random.key(0))
    planner = RandomShooting(horizon=1, candidates=300)
    value = lambda observation: 1000.0 * observation[2]  # noqa: E731
    action, _, _ = planner(alone(env), state, (), jax.random.key(1), value)
    assert action[0] > 0.97


def test_what_it_cannot_plan_in() -> None:
    with pytest.raises(BadInput, match="needs Box, Discrete or MultiDiscrete actions, not MultiBinary"):
        RandomShooting().check(spaces.MultiBinary(2))
