"""PETS: a random trial first, plans from then on, a fit after each trial; what it tells of its model."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus import training
from parnassus.algorithms.pets import PETS, Learner
from parnassus.collect import ScanCollector
from parnassus.evaluation import evaluate
from parnassus.planning.cem import CEM
from parnassus.planning.random_shooting import RandomShooting
from parnassus.types import BadInput, Spec, Transition
from parnassus.world_models.calibration import exploitation
from parnassus.world_models.deterministic import Deterministic
from parnassus.world_models.ensemble import Ensemble
from parnassus.world_models.fitting import Fitting
from tests.probe_envs import Probe

SPEC = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2, 2, (2,), np.float32), 4)
FEW_STEPS = Fitting(1e-2, minibatch_size=16, steps_per_look=20, max_looks=10)
TINY = PETS(
    CEM(horizon=2, candidates=16, iterations=2, elites=4),
    Ensemble(2, (16,), fitting=FEW_STEPS),
    num_steps=8,
    learning_starts=32,
    replay_size=128,
)
act = jax.jit(TINY.act, static_argnums=4)


def trained(learner: Learner, steps: int) -> Learner:
    return learner._replace(progress=dataclasses.replace(learner.progress, steps=jnp.int32(steps)))


def test_the_first_trial_is_random_and_then_it_plans() -> None:
    learner, memory = TINY.init(jax.random.key(0), SPEC), TINY.initial_memory(SPEC)
    observation = jnp.zeros((4, 3))
    action, after, extras = act(TINY.behavior(learner), memory, observation, jax.random.key(1), True)
    assert action.shape == (4, 2) and np.unique(action).size == 8 and np.abs(action).max() <= 1.0
    assert np.isnan(extras["plan/value"]).all() and not after.any()
    for explore, steps in ((True, 32), (False, 0)):
        _, after, extras = act(TINY.behavior(trained(learner, steps)), memory, observation, jax.random.key(1), explore)
        assert np.isfinite(extras["plan/value"]).all() and after.any(axis=(1, 2)).all()


def trajectory(value: float) -> Transition:
    """Nothing moves and every step pays 1."""
    o = jax.random.normal(jax.random.key(5), (8, 4, 3))
    action = jax.random.uniform(jax.random.key(6), (8, 4, 2), minval=-1.0)
    never = jnp.zeros((8, 4), bool)
    extras = {"plan/value": jnp.full((8, 4), value), "plan/std": jnp.ones((8, 4))}
    return Transition(o, action, jnp.ones((8, 4)), o, never, never, extras)


def test_a_trial_is_stored_and_fitted_to() -> None:
    learner = TINY.init(jax.random.key(0), SPEC)
    data = trajectory(3.5)
    after, metrics = jax.jit(TINY.learn)(learner, data, jax.random.key(1))
    assert int(after.replay.size) == 32 == int(after.progress.steps)
    says = after.model.predict(data.observation.reshape(-1, 3), data.action.reshape(-1, 2)).mean
    np.testing.assert_allclose(says[..., :3], jnp.broadcast_to(data.observation.reshape(-1, 3), (2, 32, 3)), atol=1e-5)
    np.testing.assert_allclose(says[..., 3], 1.0, atol=1e-6)
    assert metrics["plan/value"] == 3.5 and np.isfinite(metrics["model/loss"])
    assert metrics["model/exploitation"] == pytest.approx(3.5 - 2.0)  # two steps pay 2
    assert metrics["model/exploitation"] == exploitation(data.extras["plan/value"], data, 2)
    _, metrics = jax.jit(TINY.learn)(learner, trajectory(np.nan), jax.random.key(1))
    assert np.isnan(metrics["plan/value"]) and np.isnan(metrics["model/exploitation"])


@pytest.mark.parametrize(
    ("planner", "model", "continuous"),
    [
        (RandomShooting(horizon=1, candidates=16), Ensemble(2, (16,), fitting=FEW_STEPS), False),
        (CEM(horizon=1, candidates=32, elites=8, iterations=3), Deterministic((16,), fitting=FEW_STEPS), True),
    ],
    ids=["discrete", "deterministic"],
)
def test_other_planners_and_models(planner: Any, model: Any, continuous: bool) -> None:
    probe = Probe("conditional", continuous=continuous)
    algorithm = dataclasses.replace(TINY, planner=planner, model=model)
    collector = ScanCollector(probe, 4)
    *_, chunk = training.train(algorithm, collector, training.init(algorithm, collector, jax.random.key(0), 128), 128)
    assert evaluate(algorithm, algorithm.behavior(chunk.state.learner), probe, episodes=16).mean > 0.9


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (dataclasses.replace(SPEC, action_space=spaces.Discrete(2)), r"needs continuous \(Box\) actions, not Discrete"),
        (dataclasses.replace(SPEC, observation_space=spaces.Discrete(2)), "a world model learns vectors"),
    ],
)
def test_where_it_cannot_plan(spec: Spec, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        TINY.init(jax.random.key(0), spec)
