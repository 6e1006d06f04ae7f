import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from parnassus import distributions
from parnassus.distributions import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    Reshaped,
    SquashedGaussian,
    parameterize,
    spread,
)
from parnassus.types import BadInput


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def close(actual, desired, tolerance=2e-5):
    np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


# One batch [5] of each kind, by seed: two seeds give the two distributions of a divergence.
KINDS = {
    "categorical": lambda seed: Categorical(normal(seed, 5, 4)),
    "multi_categorical": lambda seed: MultiCategorical(normal(seed, 5, 9), (2, 4, 3)),
    "bernoulli": lambda seed: Bernoulli(normal(seed, 5, 3)),
    "gaussian": lambda seed: DiagonalGaussian(normal(seed, 5, 3), 0.3 * normal(seed + 100, 5, 3)),
    "gaussian_one_log_std": lambda seed: DiagonalGaussian(normal(seed, 5, 3), 0.3 * normal(seed + 100, 3)),
    "squashed": lambda seed: SquashedGaussian(normal(seed, 5, 3), 0.3 * normal(seed + 100, 5, 3)),
    "squashed_one_log_std": lambda seed: SquashedGaussian(normal(seed, 5, 3), 0.3 * normal(seed + 100, 3)),
    "reshaped": lambda seed: Reshaped(DiagonalGaussian(normal(seed, 5, 6), 0.1 * normal(seed + 100, 6)), (3, 2)),
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())


@every_kind
def test_expectations_by_sampling(make):
    """Entropy and divergence are the averages of log-probabilities that they claim to be, to 5 standard errors."""
    num_samples = 10_000

    @jax.jit
    def estimates_and_claims(p, q, keys):
        actions = jax.vmap(p.sample)(keys)
        log_p, log_q = jax.vmap(p.log_prob)(actions), jax.vmap(q.log_prob)(actions)
        return (-log_p, log_p - log_q), (p.entropy(), p.kl(q)), p.kl(p)

    keys = jax.random.split(jax.random.key(0), num_samples)
    estimates, claims, nothing = jax.device_get(estimates_and_claims(make(0), make(1), keys))
    for samples, claim in zip(estimates, claims, strict=True):
        assert samples.shape == (num_samples, 5) and claim.shape == (5,)
        standard_error = samples.std(0) / num_samples**0.5
        assert standard_error.max() < 0.1  # or five of them would say nothing
        assert (np.abs(samples.mean(0) - claim) < 5 * standard_error).all()
    close(nothing, 0)


@every_kind
def test_sample_and_log_prob(make):
    p = make(2)
    action, log_prob = p.sample_and_log_prob(jax.random.key(1))
    assert isinstance(p, Distribution)
    assert action.dtype == p.mode().dtype and action.shape == p.mode().shape
    np.testing.assert_array_equal(action, p.sample(jax.random.key(1)))
    close(log_prob, p.log_prob(action), 1e-4)


@every_kind
def test_batch_is_many_single_ones(make):
    """Also when a compiled program takes and returns distributions."""
    program = jax.jit(lambda p, action: (p, p.log_prob(action), p.entropy()))
    action = make(3).sample(jax.random.key(2))
    p, log_prob, entropy = program(make(3), action)
    for i in range(5):
        single = jax.tree.map(lambda x: x[i] if x.ndim == 2 else x, p)  # noqa: B023
        _, single_log_prob, single_entropy = program(single, action[i])
        close(single_log_prob, log_prob[i])
        close(single_entropy, entropy[i])


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_spread_distributions_are_the_same_and_can_be_taken_apart(make):
    whole, other = spread(make(0), 5), make(1)
    close(whole.kl(other), make(0).kl(other))
    close(whole.entropy(), make(0).entropy())
    part = jax.tree.map(lambda x: x[jnp.array([3, 1])], whole)
    close(part.kl(jax.tree.map(lambda x: x[jnp.array([3, 1])], spread(other, 5))), make(0).kl(other)[jnp.array([3, 1])])


def test_categorical_against_scipy():
    p, q = Categorical(normal(0, 5, 4)), Categorical(normal(1, 5, 4))
    probability, other = jax.nn.softmax(p.logits), jax.nn.softmax(q.logits)
    action = jnp.array([0, 3, 2, 1, 1])
    close(p.log_prob(action), np.log([probability[i, a] for i, a in enumerate(action)]))
    close(p.entropy(), scipy.stats.entropy(probability, axis=-1))
    close(p.kl(q), scipy.stats.entropy(probability, other, axis=-1))
    np.testing.assert_array_equal(p.mode(), np.argmax(probability, -1))


def test_forbidden_actions():
    """-inf logits: never drawn, probability 0, no NaN in any value or gradient."""
    forbidden = jnp.array([True, False, False, True])
    p, q = (Categorical(jnp.where(forbidden, -jnp.inf, normal(seed, 4))) for seed in (0, 1))
    allowed, other = Categorical(p.logits[1:3]), Categorical(q.logits[1:3])
    close(p.log_prob(jnp.array(2)), allowed.log_prob(jnp.array(1)))
    assert p.log_prob(jnp.array(0)) == -jnp.inf
    close(p.entropy(), allowed.entropy())
    close(p.kl(q), allowed.kl(other))
    assert Categorical(jnp.zeros(4)).kl(p) == jnp.inf
    drawn = Categorical(jnp.broadcast_to(p.logits, (1000, 4))).sample(jax.random.key(0))
    assert set(np.unique(drawn)) == {1, 2} and p.mode() in (1, 2)
    for f in (lambda p: p.log_prob(jnp.array(2)), Categorical.entropy, lambda p: p.kl(q), lambda p: q.kl(p)):
        slope = jax.jit(jax.grad(f))(p).logits
        assert jnp.isfinite(slope).all() and slope[1] != 0


def test_multi_categorical_is_its_parts():
    every_method = jax.jit(lambda p, q, action: (p.log_prob(action), p.entropy(), p.kl(q), p.mode()))
    slope_of_entropy_and_kl = jax.jit(jax.grad(lambda p, q: (p.entropy() + p.kl(q)).sum()))
    for sizes in ((2, 4, 3), (3, 3, 3)):  # padded, and equal
        logits, other = normal(0, 5, 9), normal(1, 5, 9)
        p, q = MultiCategorical(logits, sizes), MultiCategorical(other, sizes)
        split = np.cumsum(sizes)[:-1]
        parts = [Categorical(jnp.asarray(x)) for x in np.split(logits, split, axis=-1)]
        others = [Categorical(jnp.asarray(x)) for x in np.split(other, split, axis=-1)]
        action = jnp.stack([part.sample(jax.random.key(i)) for i, part in enumerate(parts)], axis=-1)
        log_prob, entropy, divergence, mode = every_method(p, q, action)
        close(log_prob, sum(part.log_prob(action[:, i]) for i, part in enumerate(parts)))
        close(entropy, sum(part.entropy() for part in parts))
        close(divergence, sum(a.kl(b) for a, b in zip(parts, others, strict=True)))
        np.testing.assert_array_equal(mode, np.stack([part.mode() for part in parts], axis=-1))
        assert jnp.isfinite(slope_of_entropy_and_kl(p, q).logits).all()  # the padding is -inf


def test_bernoulli_against_scipy():
    p, q = Bernoulli(normal(0, 5, 3)), Bernoulli(normal(1, 5, 3))
    probability, other = scipy.special.expit(p.logits), scipy.special.expit(q.logits)
    action = p.sample(jax.random.key(0))
    close(p.log_prob(action), scipy.stats.bernoulli(probability).logpmf(action).sum(-1))
    close(p.entropy(), scipy.stats.bernoulli(probability).entropy().sum(-1))
    pairs = np.stack([probability, 1 - probability]), np.stack([other, 1 - other])
    close(p.kl(q), scipy.stats.entropy(*pairs).sum(-1))
    np.testing.assert_array_equal(p.mode(), probability > 0.5)


def test_bernoulli_of_extreme_logits():
    p = Bernoulli(jnp.array([[100.0], [-100.0], [20.0]]))
    close(p.log_prob(jnp.array([[0], [0], [1]])), [-100, 0, -2.0611537e-9], 1e-7)
    close(p.entropy() * 1e8, np.array([0, 0, 21 * np.exp(-20) * 1e8]), 1e-5)  # relative accuracy: nothing cancels
    slope = jax.jit(jax.grad(lambda p: (p.entropy() + p.kl(Bernoulli(-p.logits))).sum()))(p)
    assert jnp.isfinite(slope.logits).all()


@pytest.mark.parametrize("name", ["gaussian", "gaussian_one_log_std"])
def test_gaussian_against_scipy(name):
    p, q = KINDS[name](0), KINDS[name](1)
    reference = scipy.stats.norm(p.mean, np.exp(np.broadcast_to(p.log_std, p.mean.shape)))
    action = p.sample(jax.random.key(0))
    close(p.log_prob(action), reference.logpdf(action).sum(-1))
    close(p.entropy(), reference.entropy().sum(-1))
    x = np.linspace(-15, 15, 20_001)[:, None, None]
    log_p, log_q = (
        scipy.stats.norm(d.mean, np.exp(np.broadcast_to(d.log_std, d.mean.shape))).logpdf(x) for d in (p, q)
    )
    close(p.kl(q), np.trapezoid(np.exp(log_p) * (log_p - log_q), x, axis=0).sum(-1))
    np.testing.assert_array_equal(p.mode(), p.mean)


def squashed_expectation(f, mean, std):
    """E[f(x)] for x ~ N(mean, std^2), by the trapezium rule in float64."""
    z = np.linspace(-12, 12, 100_001)
    return np.trapezoid(f(mean + std * z) * scipy.stats.norm.pdf(z), z)


def log_derivative(x):
    """log(1 - tanh(x)^2), in another form than the code's."""
    return np.log(4) - 2 * np.logaddexp(x, -x)


def test_squashed_density_integrates_to_one():
    for mean, log_std in ((0.0, 0.0), (0.7, -1.0), (-0.5, 0.5)):
        p = SquashedGaussian(jnp.full((1,), mean), jnp.full((1,), log_std))
        x = np.linspace(-8, 8, 4001)  # a = tanh(x): a fine grid near the borders, where the density has its peaks
        a = np.tanh(x)
        density = jnp.exp(jax.vmap(p.log_prob)(jnp.asarray(a, jnp.float32)[:, None]))
        assert np.trapezoid(density, a) == pytest.approx(1, abs=2e-3)
        reference = scipy.stats.norm(mean, np.exp(log_std)).logpdf(x) - log_derivative(x)
        middle = np.abs(x) < 3
        close(jnp.log(density)[middle], reference[middle], 1e-3)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(mean=st.floats(-20, 20, width=32), log_std=st.floats(-10, 3, width=32))
def test_squashed_entropy_is_the_integral(mean, log_std):
    p = SquashedGaussian(jnp.full((1,), mean), jnp.full((1,), log_std))
    desired = scipy.stats.norm(0, np.exp(log_std)).entropy() + squashed_expectation(
        log_derivative, mean, np.exp(log_std)
    )
    np.testing.assert_allclose(p.entropy(), desired, rtol=1e-6, atol=2e-5)


def test_squashed_entropy_has_the_right_slope():
    """By Stein: d/dmean E[f(mean + std z)] = E[f'(x)], d/dlog_std = std E[z f'(x)], with f' = -2 tanh."""
    slope_of_entropy = jax.jit(jax.grad(SquashedGaussian.entropy))
    for mean, log_std in ((0.3, -2.0), (-1.0, 0.0), (0.5, 2.0)):
        std = np.exp(log_std)
        slope = slope_of_entropy(SquashedGaussian(jnp.array([mean]), jnp.array([log_std])))
        close(slope.mean, squashed_expectation(lambda x: -2 * np.tanh(x), mean, std), 1e-4)
        towards_std = squashed_expectation(lambda x: -2 * np.tanh(x) * (x - mean), mean, std)  # noqa: B023
        close(slope.log_std, 1 + towards_std, 1e-4)


value_and_slopes = jax.jit(jax.value_and_grad(SquashedGaussian.log_prob, argnums=(0, 1)))


@pytest.mark.parametrize("log_std", [-20.0, -5.0, 0.0, 2.0])
@pytest.mark.parametrize("mean", [-30.0, 0.0, 3.0])
def test_squashed_is_finite_at_saturation(mean, log_std):
    """At |a| = 1 exactly, values and gradients towards everything are finite."""
    action = jnp.array([-1.0, 1.0, 0.999999])
    p = SquashedGaussian(jnp.full(3, mean), jnp.full(3, log_std))
    value, slopes = value_and_slopes(p, action)
    assert jnp.isfinite(value) and all(jnp.isfinite(x).all() for x in jax.tree.leaves(slopes))


def test_squashed_sample_has_an_exact_log_prob_where_tanh_is_flat():
    p = SquashedGaussian(jnp.full(1, 20.0), jnp.zeros(1))
    sample_and_log_prob = jax.jit(SquashedGaussian.sample_and_log_prob)
    action, log_prob = sample_and_log_prob(p, jax.random.key(0))
    x = float(p.base.sample(jax.random.key(0))[0])
    assert action == 1.0  # x is lost, and log_prob(action) with it
    assert log_prob == pytest.approx(scipy.stats.norm(20, 1).logpdf(x) - log_derivative(x), rel=1e-5)
    # Along the sample z is fixed, so that log p changes with the mean only as -log(1 - tanh(x)^2) does: 2 tanh(x) = 2.
    slope = jax.grad(lambda p: sample_and_log_prob(p, jax.random.key(0))[1])(p)
    close(slope.mean, 2.0)


def test_discrete_frequencies():
    """Chi-squared test of 20,000 draws, every element of the batch with its own probabilities."""
    num_samples = 20_000
    logits = normal(0, 2, 3, 4)
    many = jnp.broadcast_to(logits, (num_samples, *logits.shape))
    for p, probabilities in (
        (Categorical(many), jax.nn.softmax(logits)),
        (Bernoulli(many), jnp.stack([jax.nn.sigmoid(-logits), jax.nn.sigmoid(logits)], axis=-1)),
    ):
        actions = np.asarray(jax.jit(type(p).sample)(p, jax.random.key(0)))
        assert actions.shape == (num_samples, *probabilities.shape[:-1])
        expected = num_samples * np.asarray(probabilities, float).reshape(-1, probabilities.shape[-1])
        columns = actions.reshape(num_samples, -1).T
        counts = np.stack([np.bincount(column, minlength=expected.shape[1]) for column in columns])
        p_value = scipy.stats.chi2(counts.size - len(counts)).sf(((counts - expected) ** 2 / expected).sum())
        assert p_value > 1e-3


@pytest.mark.parametrize("kind", [DiagonalGaussian, SquashedGaussian])
def test_continuous_frequencies(kind):
    """Kolmogorov-Smirnov test of each dimension, and dimensions do not share their noise."""
    mean, log_std = jnp.array([0.0, 0.5]), jnp.array([-1.0, 0.3])
    samples = np.asarray(kind(jnp.broadcast_to(mean, (5000, 2)), log_std).sample(jax.random.key(3)))
    if kind is SquashedGaussian:
        assert np.abs(samples).max() <= 1
        samples = np.arctanh(samples.astype(float))
    for i in range(2):
        assert scipy.stats.kstest(samples[:, i], "norm", (float(mean[i]), float(np.exp(log_std[i])))).pvalue > 1e-3
    assert abs(np.corrcoef(samples.T)[0, 1]) < 0.06


SPACES = [
    (spaces.Discrete(3, start=-1), 3),
    (spaces.MultiDiscrete([2, 3, 4]), 9),
    (spaces.MultiDiscrete([[2, 3], [4, 5]]), 14),
    (spaces.MultiBinary(4), 4),
    (spaces.MultiBinary((2, 3)), 6),
    (spaces.Box(-1, 1, (3,)), 3),
    (spaces.Box(-1, 1, (2, 3)), 6),
    (spaces.Box(-1, 1, ()), 1),
]


@pytest.mark.parametrize("space, num_outputs", [pytest.param(*item, id=str(item[0])) for item in SPACES])
def test_parameterize_fits_the_space(space, num_outputs):
    head = parameterize(space)
    assert head.num_outputs == num_outputs and head.needs_log_std == isinstance(space, spaces.Box)

    def every_method(outputs, key):
        p = head.build(outputs, jnp.zeros(num_outputs) if head.needs_log_std else None)
        action, log_prob = p.sample_and_log_prob(key)
        return (action, p.mode()), (log_prob, p.log_prob(action), p.entropy(), p.kl(p))

    for batch in ((), (5,), (4, 2)):
        actions, numbers = jax.eval_shape(every_method, jnp.zeros((*batch, num_outputs)), jax.random.key(0))
        assert all(x.shape == batch + space.shape for x in actions) and all(x.shape == batch for x in numbers)

    (action, mode), (log_prob, again, *_) = jax.jit(every_method)(normal(0, 50, num_outputs), jax.random.key(0))
    close(log_prob, again)
    if isinstance(space, spaces.MultiDiscrete):
        # Each number in its own place, also in a nested space.
        np.testing.assert_array_equal(action.max(0), space.nvec - 1)
        assert (np.asarray(mode) < space.nvec).all()


def test_parameterize_squashes_boxes():
    head = parameterize(spaces.Box(-1, 1, (3,)), squash=True)
    assert isinstance(head.build(jnp.zeros(3), jnp.zeros(3)), SquashedGaussian)
    with pytest.raises(BadInput, match=r"Box can be squashed, not those of Discrete\(2\)"):
        parameterize(spaces.Discrete(2), squash=True)


def test_parameterization_is_a_value():
    """A network that holds one is equal to the next run's, so that compiled programs are found again."""
    for space, _ in SPACES:
        assert parameterize(space) == parameterize(space) and hash(parameterize(space)) == hash(parameterize(space))
    box = spaces.Box(-1, 1, (3,))
    assert parameterize(box) != parameterize(box, squash=True)
    assert parameterize(spaces.MultiDiscrete([2, 3])) != parameterize(spaces.MultiDiscrete([3, 2]))


@pytest.mark.parametrize("space", [spaces.Dict({"a": spaces.Discrete(2)}), spaces.Text(3)])
def test_parameterize_names_what_it_cannot_do(space):
    with pytest.raises(BadInput, match=rf"or Box, not {type(space).__name__}\("):
        parameterize(space)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_temperature_raises_probabilities_to_a_power(temperature):
    """log p_T(a) = log p(a) / T up to a constant, for every kind and through its shape; the mode stays."""
    gaussian = distributions.DiagonalGaussian(jnp.array([0.3, -1.0]), jnp.array([0.2, -0.5]))
    cases = [
        (distributions.Categorical(jnp.array([0.3, -1.0, 2.0])), [0, 1, 2]),
        (distributions.MultiCategorical(jnp.array([0.3, -1.0, 2.0, 0.0]), (2, 2)), [[0, 1], [1, 0], [1, 1]]),
        (distributions.Bernoulli(jnp.array([0.3, -1.0])), [[0, 1], [1, 0], [1, 1]]),
        (gaussian, [[0.0, 0.0], [1.0, -2.0], [3.0, 0.5]]),
        (distributions.Reshaped(gaussian, (2, 1)), [[[0.0], [0.0]], [[1.0], [-2.0]], [[3.0], [0.5]]]),
    ]
    for distribution, actions in cases:
        hot = distributions.temper(distribution, temperature)
        shift = [hot.log_prob(jnp.array(a)) - distribution.log_prob(jnp.array(a)) / temperature for a in actions]
        np.testing.assert_allclose(shift, shift[0] * np.ones(3), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(hot.mode(), distribution.mode())


def test_a_squashed_gaussian_has_no_temperature():
    with pytest.raises(BadInput, match="a SquashedGaussian has no temperature"):
        distributions.temper(distributions.SquashedGaussian(jnp.zeros(2), jnp.zeros(2)), 2.0)
