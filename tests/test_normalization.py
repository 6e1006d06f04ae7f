"""Running statistics equal those of all data at once; reward scales equal the definition."""

import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.normalization import RewardScaler, RunningStatistics, discounted_sums


@pytest.mark.parametrize("shape", [(), (3,)])
def test_updates_in_parts_equal_all_at_once(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(5.0, 3.0, (n, 2, *shape)).astype(np.float32) for n in (1, 7, 50)]
    running = RunningStatistics.zeros(shape)
    assert np.all(running.variance == 1.0)
    for part in parts:
        running = running.update(jnp.asarray(part))
    whole = np.concatenate(parts)
    assert running.count == 58 * 2
    np.testing.assert_allclose(running.mean, whole.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(running.variance, whole.var((0, 1)), rtol=1e-4)


def test_values_far_away_are_clipped() -> None:
    statistics = RunningStatistics.zeros(()).update(jnp.array([-1.0, 1.0]))
    np.testing.assert_allclose(statistics.normalize(jnp.array([-1e6, 0.0, 0.5, 1e6])), [-10, 0, 0.5, 10], atol=1e-6)


def test_discounted_sums_restart_with_each_episode() -> None:
    reward = np.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]], np.float32)
    done = np.array([[False, False], [True, False], [False, True]])
    last, sums = discounted_sums(jnp.array([10.0, 0.0]), jnp.asarray(reward), jnp.asarray(done), 0.5)
    np.testing.assert_allclose(sums, [[6.0, 1.0], [5.0, 2.5], [4.0, 5.25]])
    np.testing.assert_allclose(last, [4.0, 0.0])


def test_rewards_are_divided_by_the_spread_of_returns_and_keep_their_sign() -> None:
    rng = np.random.default_rng(1)
    reward = rng.normal(2.0, 1.0, (500, 4)).astype(np.float32)
    done = rng.random((500, 4)) < 0.1
    scaler = RewardScaler.zeros(4).update(jnp.asarray(reward), jnp.asarray(done), 0.9)
    returns, running = np.zeros((500, 4)), np.zeros(4)
    for t in range(500):
        running = reward[t] + 0.9 * running
        returns[t] = running
        running = np.where(done[t], 0.0, running)
    expected = reward / returns.std()
    np.testing.assert_allclose(scaler.scale(jnp.asarray(reward)), expected, rtol=1e-3)
    np.testing.assert_allclose(RewardScaler.zeros(4).scale(jnp.asarray(reward)), reward, rtol=1e-6)
