import numpy as np
import pytest
import scipy.stats

from parnassus.statistics import bootstrap_interval, interquartile_mean, mean_interval

SCORES = np.random.default_rng(0).gamma(2.0, size=(6, 11))  # [tasks, runs]


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("runs", [1, 2, 3, 4, 5, 11])
def test_interquartile_mean_is_the_trimmed_mean(axis, runs):
    x = SCORES[:, :runs]
    np.testing.assert_allclose(interquartile_mean(x, axis), scipy.stats.trim_mean(x, 0.25, axis=axis))


def test_interquartile_mean_ignores_outliers_but_not_nan():
    assert interquartile_mean([1, 2, 3, 4]) == 2.5
    assert interquartile_mean([-1e9, 2, 3, np.inf]) == 2.5
    assert np.isnan(interquartile_mean([1, 2, 3, np.nan]))
    np.testing.assert_array_equal(interquartile_mean([[1, 2, 3, np.nan], [1, 2, 3, 4]], axis=1), [np.nan, 2.5])


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_bootstrap_agrees_with_scipy(level):
    x = SCORES.ravel()
    ours = bootstrap_interval(x, interquartile_mean, level, resamples=4000)
    scipys = scipy.stats.bootstrap(
        (x,), interquartile_mean, vectorized=False, confidence_level=level, n_resamples=4000, method="percentile", rng=1
    ).confidence_interval
    assert ours.low < interquartile_mean(x) < ours.high
    np.testing.assert_allclose(ours, scipys, rtol=0, atol=0.06 * np.ptp(scipys))


def test_bootstrap_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = [low < 0 < high for low, high in (bootstrap_interval(rng.normal(size=50), np.mean, 0.8, 200, seed=i)
                                             for i in range(300))]  # fmt: skip
    assert 0.72 < np.mean(hits) < 0.86  # binomial standard deviation 0.023


def test_bootstrap_is_reproducible_and_its_seed_matters():
    x = SCORES[0]
    assert bootstrap_interval(x, seed=3) == bootstrap_interval(x, seed=3)
    assert bootstrap_interval(x, seed=3) != bootstrap_interval(x, seed=4)


def test_rows_are_resampled_whole():
    """A run's learning curve stays one curve: the difference of two perfectly tied points has no spread."""
    curves = np.stack([SCORES[0], SCORES[0] + 1], axis=1)  # [runs, points]
    low, high = bootstrap_interval(curves, lambda x: np.diff(x.mean(0)))
    np.testing.assert_allclose([low, high], 1.0)
    band = bootstrap_interval(curves, lambda x: interquartile_mean(x, axis=0))
    assert band.low.shape == band.high.shape == (2,)
    np.testing.assert_allclose(band.low + 1, [band.low[1], band.low[1] + 1])


def test_strata_are_resampled_apart():
    """Nothing varies within these very different tasks, so only a bootstrap that mixes tasks shows spread."""
    x = np.repeat([[1.0], [10.0], [100.0]], 8, axis=1)
    assert bootstrap_interval(x, np.mean, stratified=True) == (37.0, 37.0)
    low, high = bootstrap_interval(x, np.mean)
    assert low < 30 and high > 60
    # Independent within tasks: were the same runs drawn in each task, two opposite tasks would always cancel.
    opposite = np.stack([SCORES[0], -SCORES[0]])
    low, high = bootstrap_interval(opposite, np.mean, stratified=True)
    assert low < -0.05 and high > 0.05
    curves = bootstrap_interval(SCORES[:, :, None] * [1.0, 2.0], lambda x: x.mean((0, 1)), stratified=True)
    np.testing.assert_allclose(2 * curves.low[0], curves.low[1])


@pytest.mark.parametrize("stratified", [False, True])
def test_bootstrap_refuses_what_it_cannot_resample(stratified):
    for x in (1.0, np.zeros((0, 3)), *([[1.0, 2.0]] if stratified else [])):
        with pytest.raises(ValueError, match="not empty"):
            bootstrap_interval(x, stratified=stratified)
    with pytest.raises(ValueError, match=r"between 0 and 1, not 95"):
        bootstrap_interval(SCORES, level=95, stratified=stratified)


def test_mean_interval_is_student_t():
    x = SCORES[1]
    result = mean_interval(x)
    assert result.mean == pytest.approx(x.mean())
    assert (result.low, result.high) == pytest.approx(scipy.stats.ttest_1samp(x, 0).confidence_interval(0.95))
    assert mean_interval(x, 0.5).high < result.high


def test_mean_interval_of_few_returns():
    assert mean_interval([500, 500, 500]) == (500, 500, 500)
    assert mean_interval([3]) == (3, -np.inf, np.inf)
    with pytest.raises(ValueError, match="at least one return"):
        mean_interval([])
