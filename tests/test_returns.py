import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parnassus import returns
from parnassus.returns import discounted_returns, in_finished_episode

# Compiled once for all examples.
generalized_advantages = jax.jit(returns.generalized_advantages)
lambda_returns = jax.jit(returns.lambda_returns)
n_step_returns = jax.jit(returns.n_step_returns, static_argnums=5)


def trajectory(T=23, N=6, seed=0, end_rate=0.15):
    """Random rewards and values; terminations, truncations, and both at once, mixed at random."""
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, T, N)).astype(np.float32)
    terminated, truncated = rng.random((2, T, N)) < end_rate
    return reward, value, next_value, terminated, truncated


def episode_rest(t, done):
    """The steps of t's episode from t on, in one environment: up to the first end, or to the trajectory's."""
    ends = np.flatnonzero(done[t:])
    return range(t, t + ends[0] + 1 if len(ends) else len(done))


def n_step_by_definition(reward, next_value, terminated, truncated, discount, n):
    """G_{t:t+n}, one sum for each step of each environment."""
    result = np.zeros_like(reward, dtype=float)
    for i in range(reward.shape[1]):
        for t in range(len(reward)):
            steps = episode_rest(t, terminated[:, i] | truncated[:, i])[:n]
            result[t, i] = sum(discount**k * reward[s, i] for k, s in enumerate(steps))
            if not terminated[steps[-1], i]:
                result[t, i] += discount ** len(steps) * next_value[steps[-1], i]
    return result


def lambda_by_definition(reward, next_value, terminated, truncated, discount, lambda_):
    """(1 - lambda) sum_n lambda^{n-1} G_{t:t+n}; the last, longest return takes the weight that is left."""
    rest = next_value, terminated, truncated, discount
    n_step = [n_step_by_definition(reward, *rest, n + 1) for n in range(len(reward))]
    result = np.zeros_like(reward, dtype=float)
    for i in range(reward.shape[1]):
        for t in range(len(reward)):
            longest = len(episode_rest(t, terminated[:, i] | truncated[:, i]))
            weights = [(1 - lambda_) * lambda_**n for n in range(longest - 1)] + [lambda_ ** (longest - 1)]
            result[t, i] = sum(w * n_step[n][t, i] for n, w in enumerate(weights))
    return result


def gae_by_definition(reward, value, next_value, terminated, truncated, discount, gae_lambda):
    """sum_l (gamma lambda)^l delta_{t+l}."""
    delta = reward + discount * np.where(terminated, 0, next_value) - value
    result = np.zeros_like(reward, dtype=float)
    for i in range(reward.shape[1]):
        for t in range(len(reward)):
            steps = episode_rest(t, terminated[:, i] | truncated[:, i])
            result[t, i] = sum((discount * gae_lambda) ** k * delta[s, i] for k, s in enumerate(steps))
    return result


def close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=2e-5, atol=2e-5)


def on_device(*arrays):
    return tuple(map(jnp.asarray, arrays))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("n", [1, 2, 5, 22, 23, 100])
def test_n_step_returns_are_their_definition(n, seed):
    reward, _, next_value, terminated, truncated = trajectory(seed=seed)
    actual = n_step_returns(*on_device(reward, next_value, terminated, truncated), 0.9, n)
    close(actual, n_step_by_definition(reward, next_value, terminated, truncated, 0.9, n))


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
def test_lambda_returns_are_their_definition(lambda_):
    reward, _, next_value, terminated, truncated = trajectory(seed=4)
    actual = lambda_returns(*on_device(reward, next_value, terminated, truncated), 0.9, lambda_)
    close(actual, lambda_by_definition(reward, next_value, terminated, truncated, 0.9, lambda_))


@pytest.mark.parametrize("gae_lambda", [0.0, 0.3, 0.95, 1.0])
def test_generalized_advantages_are_their_definition(gae_lambda):
    arrays = trajectory(seed=5)
    close(generalized_advantages(*on_device(*arrays), 0.9, gae_lambda), gae_by_definition(*arrays, 0.9, gae_lambda))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    ends=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=7, max_size=7),
    discount=st.floats(0, 1, width=32),
    decay=st.floats(0, 1, width=32),
    n=st.integers(1, 8),
)
def test_every_pattern_of_ends(ends, discount, decay, n):
    reward, value, next_value, *_ = trajectory(T=7, N=1)
    terminated, truncated = np.array(ends).T[..., None]
    close(
        generalized_advantages(*on_device(reward, value, next_value, terminated, truncated), discount, decay),
        gae_by_definition(reward, value, next_value, terminated, truncated, discount, decay),
    )
    arrays = reward, next_value, terminated, truncated
    close(lambda_returns(*on_device(*arrays), discount, decay), lambda_by_definition(*arrays, discount, decay))
    close(n_step_returns(*on_device(*arrays), discount, n), n_step_by_definition(*arrays, discount, n))


def test_discounted_returns_and_which_of_them_are_whole():
    reward, _, _, terminated, truncated = trajectory(seed=6, end_rate=0.05)
    done = terminated | truncated
    returns = discounted_returns(*on_device(reward, terminated, truncated), 0.9)
    whole = in_finished_episode(*on_device(terminated, truncated))
    assert 0 < whole.mean() < 1  # both kinds occur, or the test says nothing
    for i in range(reward.shape[1]):
        for t in range(len(reward)):
            steps = episode_rest(t, done[:, i])
            close(returns[t, i], sum(0.9**k * reward[s, i] for k, s in enumerate(steps)))
            assert whole[t, i] == done[steps[-1], i]


def test_limits_of_lambda():
    """lambda = 0 is TD(0); lambda = 1 is the longest n-step return, Monte Carlo where episodes terminate."""
    reward, value, next_value, terminated, truncated = on_device(*trajectory(seed=7))
    rest = next_value, terminated, truncated, 0.9
    td = reward + 0.9 * jnp.where(terminated, 0, next_value)
    close(lambda_returns(reward, *rest, 0.0), td)
    close(n_step_returns(reward, *rest, 1), td)
    close(generalized_advantages(reward, value, *rest, 0.0), td - value)
    longest = n_step_returns(reward, *rest, len(reward))
    close(lambda_returns(reward, *rest, 1.0), longest)
    consistent = jnp.concatenate([value[1:], next_value[-1:]]), terminated, jnp.zeros_like(truncated), 0.9
    close(generalized_advantages(reward, value, *consistent, 0.7), lambda_returns(reward, *consistent, 0.7) - value)
    terminated = terminated.at[-1].set(True)
    never = jnp.zeros_like(terminated)
    close(
        lambda_returns(reward, next_value, terminated, never, 0.9, 1.0),
        discounted_returns(reward, terminated, never, 0.9),
    )


def test_time_limits_are_not_terminations():
    """Reward 1 forever, cut every 5 steps: with V = 1 / (1 - gamma) every estimate agrees, wherever the cuts are."""
    ones, never = jnp.ones((12, 2)), jnp.zeros((12, 2), bool)
    cut = never.at[4::5].set(True)
    value = 10 * ones
    close(generalized_advantages(ones, value, value, never, cut, 0.9, 0.95), 0 * ones)
    close(lambda_returns(ones, value, never, cut, 0.9, 0.95), value)
    close(n_step_returns(ones, value, never, cut, 0.9, 3), value)
    close(generalized_advantages(ones, value, value, cut, never, 0.9, 0.0)[4], -9 * ones[0])


def test_nothing_leaks_from_behind_an_end():
    """Neither from later episodes, nor from the value of a terminal state, not even if that is NaN."""
    reward, value, next_value, *_ = on_device(*trajectory(seed=8))
    never = jnp.zeros(reward.shape, bool)
    terminated, truncated = never.at[9, ::2].set(True), never.at[9, 1::2].set(True)

    def estimates(reward, value, next_value):
        rest = next_value, terminated, truncated, 0.9
        return (
            generalized_advantages(reward, value, *rest, 0.9),
            lambda_returns(reward, *rest, 0.9),
            n_step_returns(reward, *rest, 4),
            discounted_returns(reward, terminated, truncated, 0.9),
        )

    others = (x.at[10:].set(1e6) for x in (reward, value, next_value.at[9, ::2].set(jnp.nan)))
    for before, after in zip(estimates(reward, value, next_value), estimates(*others), strict=True):
        np.testing.assert_array_equal(before[:10], after[:10])


def test_rlax_agrees():
    rlax = pytest.importorskip("rlax")
    reward, value, _, terminated, _ = on_device(*trajectory(seed=9))
    # rlax has one value array of T + 1 rows and no notion of truncation.
    values = jnp.concatenate([value, value[-1:] * 0.5])
    rest = terminated, jnp.zeros_like(terminated), 0.9
    discounts = 0.9 * ~terminated

    def over_envs(function):
        return jax.vmap(function, in_axes=1, out_axes=1)

    def rlax_advantages(r, d, v):
        return rlax.truncated_generalized_advantage_estimation(r, d, 0.8, v)

    close(
        generalized_advantages(reward, value, values[1:], *rest, 0.8),
        over_envs(rlax_advantages)(reward, discounts, values),
    )
    close(
        lambda_returns(reward, values[1:], *rest, 0.8),
        over_envs(lambda r, d, v: rlax.lambda_returns(r, d, v, 0.8))(reward, discounts, values[1:]),
    )
    close(
        n_step_returns(reward, values[1:], *rest, 4),
        over_envs(lambda r, d, v: rlax.n_step_bootstrapped_returns(r, d, v, 4))(reward, discounts, values[1:]),
    )


def test_real_numbers_are_data():
    """Discount and lambda may be traced: swept by vmap, and returns are differentiable."""
    arrays = reward, _, *rest = on_device(*trajectory(seed=10))
    sweep = jax.jit(jax.vmap(lambda discount, decay: generalized_advantages(*arrays, discount, decay)))
    discounts, lambdas = jnp.array([0.5, 0.9]), jnp.array([0.2, 0.7])
    for i in range(2):
        close(sweep(discounts, lambdas)[i], generalized_advantages(*arrays, discounts[i], lambdas[i]))
    slope = jax.grad(lambda r: n_step_returns(r, *rest, 0.9, 3)[0, 0])(reward)
    assert slope[0, 0] == 1 and not slope[:, 1:].any()


@pytest.mark.parametrize("n", [0, -1])
def test_n_step_returns_refuse_n_below_one(n):
    reward, _, next_value, terminated, truncated = on_device(*trajectory(T=2, N=1))
    with pytest.raises(ValueError, match=f"at least 1, not {n}"):
        n_step_returns(reward, next_value, terminated, truncated, 0.9, n)
