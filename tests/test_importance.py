"""Importance sampling where every episode can be listed: expectations are exact sums, not samples."""

import itertools
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import importance
from parnassus.importance import Episodes, clipped, decision_weights, effective_sample_size, ordinary, weighted
from parnassus.types import Transition

GAMMA = 0.9
# Two states, two actions, two steps: p(s' = 1 | s, a), r(s, a), and two policies, pi to judge and mu to act.
MOVE = np.array([[0.25, 0.75], [0.5, 1.0]])
REWARD = np.array([[1.0, 3.0], [-2.0, 2.0]])
PI = np.array([[0.25, 0.75], [0.5, 0.5]])
MU = np.array([[0.5, 0.5], [0.75, 0.25]])
WEIGHTS = [importance.trajectory_weights, decision_weights]

pytestmark = pytest.mark.filterwarnings("ignore:importance weights have collapsed")  # a single episode is enough


class Population(NamedTuple):
    """Every episode that there is, [T, E], and how probable each is."""

    episodes: Episodes
    probability: np.ndarray  # under mu
    under_pi: np.ndarray


def enumerated() -> Population:
    """All (s_0 = 0, a_0, s_1, a_1)."""
    rows = []
    for a, s, b in itertools.product(range(2), repeat=3):
        p_move = MOVE[0, a] if s else 1 - MOVE[0, a]
        if p_move:
            p, q = (p_move * policy[0, a] * policy[s, b] for policy in (MU, PI))
            rows.append(([REWARD[0, a], REWARD[s, b]], [PI[0, a] / MU[0, a], PI[s, b] / MU[s, b]], p, q))
    reward, ratio, p, q = (np.array(column) for column in zip(*rows, strict=True))
    episodes = Episodes(jnp.asarray(reward.T, jnp.float32), jnp.asarray(np.log(ratio.T), jnp.float32))
    return Population(episodes, p, q)


ALL = enumerated()
RETURNS = np.asarray(ALL.episodes.reward[0] + GAMMA * ALL.episodes.reward[1])
TRUE = float(ALL.under_pi @ RETURNS)  # J(pi)
OF_MU = float(ALL.probability @ RETURNS)  # J(mu)


def take(index: Any) -> Episodes:
    return jax.tree.map(lambda x: x[:, jnp.asarray(index)], ALL.episodes)


def moments(estimator: Callable, weights: Callable, n: int) -> tuple[float, float]:
    """The mean and the variance of an estimate from n episodes of mu, summed over all that may be drawn."""
    drawn = np.array(list(itertools.product(range(len(RETURNS)), repeat=n)))
    probability = ALL.probability[drawn].prod(1)

    def estimate(index: Any) -> Any:
        return estimator(take(index), weights(take(index)), GAMMA)

    values = np.asarray(jax.jit(jax.vmap(estimate))(drawn), np.float64)
    mean = probability @ values
    return float(mean), float(probability @ (values - mean) ** 2)


def test_the_population_is_whole() -> None:
    assert ALL.probability.sum() == pytest.approx(1.0) and ALL.under_pi.sum() == pytest.approx(1.0)
    assert abs(TRUE - OF_MU) > 0.5  # so that the one cannot pass for the other


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("n", [1, 2])
def test_the_ordinary_estimate_is_unbiased(n: int, weights: Callable) -> None:
    assert moments(ordinary, weights, n)[0] == pytest.approx(TRUE, rel=1e-5)


def test_weighing_each_decision_has_less_variance() -> None:
    by_trajectory, by_decision = (moments(ordinary, weights, 1)[1] for weights in WEIGHTS)
    assert 0 < by_decision < by_trajectory
    assert moments(ordinary, decision_weights, 2)[1] == pytest.approx(by_decision / 2, rel=1e-4)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_weighted_estimate_starts_at_the_other_policy_and_moves_to_the_right_one(weights: Callable) -> None:
    """From one episode it is that episode's return, so J(mu) in expectation; its bias then falls with 1/n."""
    bias = [moments(weighted, weights, n)[0] - TRUE for n in (1, 2, 3, 4)]
    assert bias[0] == pytest.approx(OF_MU - TRUE, rel=1e-4)
    assert np.all(np.diff(np.abs(bias)) < 0) and abs(bias[3]) < 0.5 * abs(bias[0])
    assert moments(weighted, weights, 2)[1] < moments(ordinary, weights, 2)[1]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_weighted_estimate_is_consistent(weights: Callable) -> None:
    """Of a sample in which every episode is as frequent as it is probable, it is J(pi)."""
    count = np.round(ALL.probability * 64).astype(int)
    np.testing.assert_allclose(count / 64, ALL.probability)
    sample = take(np.repeat(np.arange(len(count)), count))
    assert weighted(sample, weights(sample), GAMMA) == pytest.approx(TRUE, rel=1e-5)
    assert ordinary(sample, weights(sample), GAMMA) == pytest.approx(TRUE, rel=1e-5)


def test_the_weighted_estimate_stays_in_the_range_of_returns() -> None:
    sample = take([0, 3])._replace(log_ratio=jnp.array([[50.0, -50.0], [60.0, 0.0]]))
    value = weighted(sample, importance.trajectory_weights(sample), GAMMA)
    assert value == pytest.approx(float(RETURNS[0]), rel=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_clipping_trades_variance_for_bias(weights: Callable) -> None:
    limits = (0.5, 1.0, 1.6, 100.0)
    mean, variance = zip(*(moments(partial(clipped, limit=c), weights, 1) for c in limits), strict=True)
    assert list(variance) == sorted(variance)
    assert mean[-1] == pytest.approx(TRUE, rel=1e-5)  # no weight is that large
    log_weight = np.asarray(weights(ALL.episodes))
    rewards = np.asarray(ALL.episodes.reward) * [[1.0], [GAMMA]]
    by_hand = (ALL.probability * np.minimum(np.exp(log_weight), 1.0) * rewards).sum()
    assert mean[1] == pytest.approx(by_hand, rel=1e-5) and abs(by_hand - TRUE) > 0.1


def test_the_effective_sample_size_is_between_one_and_all() -> None:
    log_weight = 3.0 * jax.random.normal(jax.random.key(0), (50, 20))
    size = effective_sample_size(log_weight)
    assert size.shape == (50,) and bool((size >= 1).all()) and bool((size <= 20).all())
    assert effective_sample_size(jnp.full(20, 7.0)) == pytest.approx(20)
    assert effective_sample_size(jnp.zeros(20).at[3].set(100.0)) == pytest.approx(1)
    assert effective_sample_size(jnp.log(jnp.array([1.0, 2.0]))) == pytest.approx(9 / 5)


def test_a_collapse_is_warned_of_but_not_inside_jit() -> None:
    log_ratio = jnp.zeros((2, 20)).at[0, 3].set(100.0)
    far, near = Episodes(jnp.ones((2, 20)), log_ratio), Episodes(jnp.ones((2, 20)), jnp.zeros((2, 20)))
    for estimator in (ordinary, weighted):
        with pytest.warns(UserWarning, match=r"collapsed: 20 episodes say as much as 1\.0 would"):
            estimator(far, decision_weights(far), GAMMA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ordinary(near, decision_weights(near), GAMMA)
        clipped(far, decision_weights(far), GAMMA, 1.0)  # so clipped that all count alike
        jax.jit(ordinary)(far, decision_weights(far), GAMMA)


def test_only_the_first_episode_of_a_column_counts() -> None:
    """An episode's own last step does, what follows does not, and one without an end is cut."""
    flags = lambda *rows: jnp.array(rows)  # noqa: E731
    trajectory = Transition(
        jnp.zeros((3, 2, 1)),
        jnp.zeros((3, 2), jnp.int32),
        jnp.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]),
        jnp.zeros((3, 2, 1)),
        flags([False, False], [True, False], [True, False]),
        flags([False, False], [False, False], [False, False]),
        {"log_prob": jnp.full((3, 2), -1.0)},
    )
    episodes = Episodes.first(trajectory, jnp.full((3, 2), -0.5))
    np.testing.assert_array_equal(episodes.reward, [[1.0, 1.0], [2.0, 2.0], [0.0, 4.0]])
    np.testing.assert_array_equal(episodes.log_ratio, [[0.5, 0.5], [0.5, 0.5], [0.0, 0.5]])
    np.testing.assert_allclose(decision_weights(episodes)[-1], [1.0, 1.5])
