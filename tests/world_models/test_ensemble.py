"""The likelihood against SciPy, a noisy linear world recovered, what its intervals cover, what was never seen."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium import spaces

from parnassus.envs.classic import CartPole
from parnassus.networks import MLP
from parnassus.off_policy import Experience, create_replay
from parnassus.types import BadInput, Spec
from parnassus.world_models.calibration import coverage, held_out_transform
from parnassus.world_models.ensemble import (
    Ensemble,
    EnsembleModel,
    Gaussian,
    Member,
    Outputs,
    negative_log_likelihood,
)
from parnassus.world_models.fitting import Fitting
from tests.world_models.streams import NOISE, SPEC, linear, linear_mean, linear_replay, replay_of, spec_of

TINY = Ensemble(3, (32,), fitting=Fitting(3e-3, minibatch_size=64, steps_per_look=100, max_looks=20))
fit = jax.jit(lambda ensemble, model, replay, key: ensemble.fit(model, replay, key))


@pytest.fixture(scope="module")
def fitted() -> tuple[EnsembleModel, dict[str, Any]]:
    """An ensemble that has seen 3,000 steps of the linear world."""
    model = TINY.create(jax.random.key(0), SPEC)
    return fit(TINY, model, linear_replay(3_000), jax.random.key(1))


def member_of(model: EnsembleModel, i: int) -> Member:
    return jax.tree.map(lambda x: x[i], model.members)


def test_the_likelihood_is_scipys() -> None:
    mean, std, target = jax.random.normal(jax.random.key(0), (3, 50))
    wanted = -scipy.stats.norm.logpdf(target, mean, np.abs(std))
    np.testing.assert_allclose(negative_log_likelihood(mean, std**2, target), wanted, rtol=1e-4, atol=1e-4)


def test_the_variance_is_the_papers_between_its_bounds() -> None:
    """Chua et al. 2018, appendix A.1, as it is written there; far outside, the bounds themselves."""
    head = Gaussian(MLP((), "swish"), 2, learn_termination=False)
    params = head.init(jax.random.key(0), jnp.zeros(1))["params"] | {
        "max_log_variance": jnp.array([0.5, -1.0]),
        "min_log_variance": jnp.array([-10.0, -3.0]),
        "Dense_0": {"kernel": jnp.ones((1, 4)), "bias": jnp.zeros(4)},
    }
    y = np.linspace(-20.0, 20.0, 101)[:, None]
    highest, lowest = np.array([0.5, -1.0]), np.array([-10.0, -3.0])
    wanted = highest - np.logaddexp(0.0, highest - y)
    wanted = lowest + np.logaddexp(0.0, wanted - lowest)
    variance = jax.vmap(lambda y: head.apply({"params": params}, y).variance)(jnp.asarray(y, jnp.float32))
    np.testing.assert_allclose(np.log(variance), wanted, rtol=1e-4, atol=1e-4)


def test_the_score_is_the_likelihood_of_a_batch_in_scaled_units() -> None:
    """Per number; the scale's own share, log std, is left out."""
    model = TINY.create(jax.random.key(0), SPEC)
    member = dataclasses.replace(
        member_of(model, 0), targets=dataclasses.replace(member_of(model, 0).targets, std=jnp.array([1.0, 2.0, 4.0]))
    )
    batch = linear(20, 3)._replace(discount=(jnp.arange(20) % 3 > 0) * 0.9)
    outputs = jax.vmap(member.predict)(batch.observation, batch.action)
    truth = np.concatenate([batch.next_observation, batch.reward[:, None]], axis=-1)
    likelihood = scipy.stats.norm.logpdf(truth, outputs.mean, np.sqrt(outputs.variance))
    p = 1 / (1 + np.exp(-np.asarray(outputs.termination)))
    termination = np.where(np.arange(20) % 3 == 0, np.log(p), np.log(1 - p))
    wanted = -(likelihood + np.log([1.0, 2.0, 4.0])).mean() - termination.mean()
    assert member.score(batch) == pytest.approx(wanted, rel=1e-4)


def test_a_linear_world_and_its_noise_are_recovered(fitted: tuple) -> None:
    model, metrics = fitted
    fresh = linear(500, 7)
    outputs = model.predict(fresh.observation, fresh.action)
    change, reward = linear_mean(fresh.observation, fresh.action)
    expected = np.concatenate([fresh.observation + change, reward[:, None]], axis=-1)
    error = np.sqrt(((outputs.mean.mean(0) - expected) ** 2).mean(0))
    assert (error < 0.2 * NOISE).all()
    np.testing.assert_allclose(np.sqrt(outputs.variance).mean((0, 1)), NOISE, rtol=0.2)
    assert metrics["model/loss"] < 0.5 and 0.0 < metrics["model/disagreement"] < 0.2 and metrics["model/looks"] >= 1


def test_intervals_cover_what_was_held_out(fitted: tuple) -> None:
    covered = coverage(held_out_transform(fitted[0].members, linear(2_000, 8)))
    np.testing.assert_allclose(covered.mean(1), np.linspace(0.1, 0.9, 9), atol=0.05)


def test_members_disagree_more_where_nothing_was_seen(fitted: tuple) -> None:
    outputs = fitted[0].predict(jnp.array([[0.0, 0.0], [60.0, 2.0]]), jnp.zeros((2, 1)))
    seen, unseen = outputs.mean.std(0)
    assert (unseen > 5 * seen).all()


def test_a_step_is_drawn_from_what_is_predicted(fitted: tuple) -> None:
    member = member_of(fitted[0], 1)
    state, action = jnp.array([1.0, 0.1]), jnp.array([0.5])
    step = jax.vmap(member.step, (None, None, 0))(state, action, jax.random.split(jax.random.key(0), 4_000))
    outputs = member.predict(state, action)
    std = np.sqrt(outputs.variance)
    np.testing.assert_allclose(step.state.mean(0), outputs.mean[:2], atol=0.05 * std.max())
    np.testing.assert_allclose(step.state.std(0), std[:2], rtol=0.05)
    np.testing.assert_array_equal(step.reward, step.reward[0])  # its mean
    assert step.reward[0] == pytest.approx(float(outputs.mean[2]))
    assert not step.terminated.any() and not step.truncated.any()


def test_only_what_the_replay_holds_counts_and_its_size_is_data() -> None:
    """Rows that were never written change nothing, and another size is the same program."""
    traces = []

    @jax.jit
    def counted(model: EnsembleModel, replay: Any, key: Any) -> Any:
        traces.append(0)
        return few.fit(model, replay, key)

    few = dataclasses.replace(TINY, fitting=dataclasses.replace(TINY.fitting, max_looks=1))
    model, replay = few.create(jax.random.key(0), SPEC), linear_replay(100)
    garbage = jax.tree.map(lambda x: x.at[100:].set(1e9), replay.storage)
    a, _ = counted(model, replay, jax.random.key(1))
    b, _ = counted(model, dataclasses.replace(replay, storage=garbage), jax.random.key(1))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    counted(model, replay.add(jax.tree.map(lambda x: x[:, None], linear(50, 1))), jax.random.key(1))
    assert len(traces) == 1


def test_terminations_are_learned_where_they_were_seen_and_a_constant_reward_stays() -> None:
    env = CartPole()
    ensemble = dataclasses.replace(TINY, num_members=2)
    blank = ensemble.create(jax.random.key(0), spec_of(env))
    model, _ = fit(ensemble, blank, replay_of(env, 500, 0), jax.random.key(1))
    where = jnp.array([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.2, 2.5]])  # upright; about to fall over
    outputs = model.predict(where, jnp.array([1, 1]))
    probability = jax.vmap(jax.vmap(Member.termination_probability, (None, 0)))(model.members, outputs)
    assert (probability[:, 0] < 0.05).all() and (probability[:, 1] > 0.5).all()
    np.testing.assert_allclose(outputs.mean[..., -1], 1.0, atol=1e-6)
    far = model.predict(100.0 * where, jnp.array([1, 1]))
    np.testing.assert_allclose(far.mean[..., -1], 1.0, atol=1e-6)
    unseen = dataclasses.replace(model.members, terminates=jnp.zeros(2, bool))
    assert not jax.vmap(jax.vmap(Member.termination_probability, (None, 0)))(unseen, outputs).any()


def test_without_a_termination_head_nothing_ends() -> None:
    ensemble = dataclasses.replace(TINY, learn_termination=False)
    model = ensemble.create(jax.random.key(0), SPEC)
    assert model.predict(jnp.zeros((1, 2)), jnp.zeros((1, 1))).termination is None
    assert member_of(model, 0).termination_probability(Outputs(jnp.zeros(3), jnp.zeros(3), None)) == 0.0
    batch = linear(10, 0)
    over = Experience(*batch[:-1], jnp.zeros(10))
    assert member_of(model, 0).score(batch) == member_of(model, 0).score(over)


def test_products_are_batched_over_members() -> None:
    """[E, rows, features], whatever asks for them; no weights are gathered."""
    model = TINY.create(jax.random.key(0), SPEC)
    states, actions = jnp.zeros((7, 2)), jnp.zeros((7, 1))
    text = str(jax.make_jaxpr(model.predict)(states, actions))
    assert "dot_general" in text and "gather" not in text
    assert "f32[3,7,32]" in text or "f32[3,32,7]" in text


def test_other_spaces_are_refused() -> None:
    image = spaces.Box(0, 255, (8, 8, 1), np.uint8)
    with pytest.raises(BadInput, match="a world model learns vectors"):
        TINY.create(jax.random.key(0), Spec(image, spaces.Discrete(2), 1))


def test_an_empty_replay_leaves_a_model_that_can_be_asked() -> None:
    model = TINY.create(jax.random.key(0), SPEC)
    after, _ = fit(TINY, model, create_replay(SPEC, 6_000), jax.random.key(1))
    for x, y in zip(*map(jax.tree.leaves, (after.members.network, model.members.network)), strict=True):
        np.testing.assert_array_equal(x, y)
    assert np.isfinite(after.predict(jnp.ones((1, 2)), jnp.ones((1, 1))).mean).all()
