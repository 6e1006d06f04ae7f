"""MBPO: what is imagined, which minibatches SAC is given, and that nothing is learned too early."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.algorithms.mbpo import MBPO, Learner
from parnassus.algorithms.sac import SAC
from parnassus.types import BadInput, Spec, Transition
from parnassus.world_models.ensemble import Ensemble
from parnassus.world_models.fitting import Fitting

SPEC = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2, 2, (2,), np.float32), 4)
TINY = MBPO(
    SAC(num_steps=8, minibatch_size=64, replay_size=128, learning_starts=32, hidden_sizes=(16,)),
    Ensemble(2, (16,), fitting=Fitting(1e-2, minibatch_size=16, steps_per_look=20, max_looks=5)),
    horizon=3,
    rollouts=20,
    imagined_size=100,
)


def trajectory(seed: int) -> Transition:
    """Every step adds 1 to the first number of the observation, and pays 2."""
    o = jax.random.normal(jax.random.key(seed), (8, 4, 3))
    action = jax.random.uniform(jax.random.key(seed + 100), (8, 4, 2), minval=-1.0)
    never = jnp.zeros((8, 4), bool)
    return Transition(o, action, jnp.full((8, 4), 2.0), o.at[..., 0].add(1.0), never, never, {})


learn = jax.jit(lambda algorithm, learner, data, key: algorithm.learn(learner, data, key))


@pytest.fixture(scope="module")
def learned() -> tuple[Learner, Learner, dict]:
    """Before and after the first iteration with updates, and its metrics."""
    before = TINY.init(jax.random.key(0), SPEC)
    return before, *learn(TINY, before, trajectory(0), jax.random.key(1))


def test_what_is_imagined_starts_from_experience_and_follows_the_model(learned: tuple) -> None:
    _, after, metrics = learned
    assert int(after.agent.replay.size) == 32 and int(after.imagined.size) == 60
    rows = after.imagined[jnp.arange(60)]
    known = np.asarray(trajectory(0).observation).reshape(-1, 3)
    first = np.asarray(rows.observation[:20])
    assert all((known == o).all(1).any() for o in first)
    np.testing.assert_array_equal(rows.observation[20:], rows.next_observation[:40])  # branches of three steps
    np.testing.assert_allclose(rows.next_observation - rows.observation, [[1.0, 0.0, 0.0]] * 60, atol=1e-4)
    np.testing.assert_allclose(rows.reward, 2.0, atol=1e-5)
    np.testing.assert_allclose(rows.discount, 0.99, rtol=1e-6)
    assert np.isfinite(metrics["loss/value"]) and np.isfinite(metrics["model/loss"])


def test_the_agent_has_learned_by_sacs_update(learned: tuple) -> None:
    before, after, metrics = learned
    moved = [
        not np.array_equal(x, y)
        for x, y in zip(*map(jax.tree.leaves, (before.agent.policy, after.agent.policy)), strict=True)
    ]
    assert all(moved)
    count = next(x for x in jax.tree.leaves(after.agent.optimizers) if x.dtype == jnp.int32)
    assert int(count) == 32  # one gradient step for each real step
    assert {"loss/policy", "loss/value", "policy/entropy", "policy/temperature"} < metrics.keys()


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_so_many_of_a_minibatch_are_real(learned: tuple, fraction: float) -> None:
    algorithm = dataclasses.replace(
        TINY, real_fraction=fraction, sac=dataclasses.replace(TINY.sac, minibatch_size=2_000)
    )
    _, after, _ = learned
    marked = dataclasses.replace(
        after.imagined,
        storage=after.imagined.storage._replace(reward=jnp.full(100, -5.0), observation=jnp.zeros((100, 3))),
    )
    batch = algorithm.minibatch(after.agent.replay, marked, jax.random.key(3))
    is_real = np.asarray(batch.reward) != -5.0
    assert is_real.mean() == pytest.approx(fraction, abs=0.04)
    assert not np.asarray(batch.observation)[~is_real].any() and np.asarray(batch.observation)[is_real].all()


def test_before_the_first_steps_are_taken_nothing_is_learned() -> None:
    algorithm = dataclasses.replace(TINY, sac=dataclasses.replace(TINY.sac, learning_starts=33))
    before = algorithm.init(jax.random.key(0), SPEC)
    after, metrics = learn(algorithm, before, trajectory(0), jax.random.key(1))
    assert all(np.isnan(metric) for metric in metrics.values())
    assert int(after.imagined.size) == 0 and int(after.agent.replay.size) == 32
    for name in ("policy", "critics"):
        for x, y in zip(*(jax.tree.leaves(getattr(one.agent, name)) for one in (before, after)), strict=True):
            np.testing.assert_array_equal(x, y)


def test_exploitation_is_of_steps_that_the_model_has_not_seen(learned: tuple) -> None:
    """A model that says 2 a step; now steps pay 1."""
    _, after, _ = learned
    fresh = trajectory(1)
    poorer = fresh._replace(reward=jnp.ones((8, 4)))
    _, metrics = learn(TINY, after, poorer, jax.random.key(2))
    assert metrics["model/exploitation"] == pytest.approx(1.0 + 0.99 + 0.99**2, rel=1e-3)


def test_where_it_cannot_learn() -> None:
    with pytest.raises(BadInput, match="SAC needs a continuous"):
        TINY.init(jax.random.key(0), dataclasses.replace(SPEC, action_space=spaces.Discrete(2)))
    with pytest.raises(BadInput, match="a world model learns vectors"):
        TINY.init(jax.random.key(0), dataclasses.replace(SPEC, observation_space=spaces.Discrete(2)))
