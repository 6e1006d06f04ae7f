"""Fisher matrices, natural gradients and the line search, on a policy small enough to write everything out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from parnassus.second_order import Direction, conjugate_gradient, fisher_vector_product, line_search, natural_step

STATES, ACTIONS, PARAMETERS = 5, 3, 4
rng = np.random.default_rng(0)
FEATURES = rng.normal(size=(STATES, ACTIONS, PARAMETERS)).astype(np.float32)  # phi(s, a)
THETA = rng.normal(size=PARAMETERS).astype(np.float32)
ADVANTAGES = rng.normal(size=(STATES, ACTIONS)).astype(np.float32)


def log_policy(theta: jax.Array) -> jax.Array:
    """log pi(a | s) of a linear softmax policy, states equally likely. [S, A]"""
    return jax.nn.log_softmax(FEATURES @ theta)


def kl(theta: jax.Array) -> jax.Array:
    """mean_s KL(pi_THETA || pi_theta)."""
    old = log_policy(THETA)
    return (jnp.exp(old) * (old - log_policy(theta))).sum(-1).mean()


def surrogate(theta: jax.Array) -> jax.Array:
    """mean_s sum_a pi_theta(a | s) A(s, a)."""
    return (jnp.exp(log_policy(theta)) * ADVANTAGES).sum(-1).mean()


def fisher() -> np.ndarray:
    """E[score score^T], by the definition: score(s, a) = phi(s, a) - sum_b pi(b | s) phi(s, b)."""
    policy = np.exp(np.asarray(log_policy(THETA)))
    scores = FEATURES - (policy[:, :, None] * FEATURES).sum(1, keepdims=True)
    return np.einsum("sa,sap,saq->pq", policy, scores, scores) / STATES


def test_the_fisher_matrix_is_the_hessian_of_the_kl() -> None:
    np.testing.assert_allclose(jax.hessian(kl)(THETA), fisher(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("direction", [*np.eye(PARAMETERS, dtype=np.float32), np.ones(PARAMETERS, np.float32)])
def test_the_kl_is_quadratic_to_second_order(direction: np.ndarray) -> None:
    """KL(theta + d) = d^T F d / 2 + O(|d|^3); the mean of d and -d is without the cubic term."""
    small = 0.1 * direction
    expected = small @ fisher() @ small / 2
    assert (kl(THETA + small) + kl(THETA - small)) / 2 == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_products_are_those_of_the_explicit_matrix(damping: float) -> None:
    product = jax.jit(fisher_vector_product(kl, jnp.asarray(THETA), damping))
    for x in rng.normal(size=(3, PARAMETERS)).astype(np.float32):
        np.testing.assert_allclose(product(x), fisher() @ x + damping * x, rtol=1e-4, atol=1e-6)


def test_conjugate_gradients_solve_the_equations() -> None:
    """In as many iterations as there are parameters, where a direct solution is the measure; fewer get less close."""
    root = rng.normal(size=(20, 20)).astype(np.float32)
    matrix, g = root @ root.T / 20 + 0.1 * np.eye(20, dtype=np.float32), jnp.asarray(rng.normal(size=20), jnp.float32)
    found = conjugate_gradient(lambda x: matrix @ x, g, 40)
    np.testing.assert_allclose(found.x, np.linalg.solve(matrix, g), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.product, g, atol=1e-3)
    early = conjugate_gradient(lambda x: matrix @ x, g, 3)
    assert found.residual < 1e-4 < early.residual
    assert early.residual == pytest.approx(np.linalg.norm(matrix @ early.x - g) / np.linalg.norm(g), rel=1e-3)


def test_a_natural_step_is_as_long_as_the_model_allows() -> None:
    """Kakade 2001: sqrt(2 delta / g^T F^-1 g) F^-1 g, of which the predicted KL is delta, and the true one nearly."""
    g = jax.grad(surrogate)(THETA)
    direction = conjugate_gradient(fisher_vector_product(kl, jnp.asarray(THETA), 0.0), g, 20)
    step = np.asarray(natural_step(direction, 1e-3))
    natural = np.linalg.solve(fisher(), g)
    np.testing.assert_allclose(step, np.sqrt(2e-3 / (g @ natural)) * natural, rtol=1e-2)
    assert step @ fisher() @ step / 2 == pytest.approx(1e-3, rel=1e-2)
    assert kl(THETA + step) == pytest.approx(1e-3, rel=0.1)
    length = float(np.linalg.norm(step) / np.linalg.norm(direction.x))
    np.testing.assert_allclose(natural_step(direction, 1e-3, limit=length / 2), step / 2, rtol=1e-4)
    np.testing.assert_allclose(natural_step(direction, 1e-3, limit=length * 2), step, rtol=1e-4)


def test_without_a_gradient_there_is_no_step() -> None:
    zero = jnp.zeros(PARAMETERS)
    direction = conjugate_gradient(fisher_vector_product(kl, jnp.asarray(THETA), 0.1), zero, 10)
    assert np.array_equal(natural_step(direction, 0.01), zero) and direction.residual == 0
    backwards = Direction(jnp.ones(2), -jnp.ones(2), jnp.float32(0))  # as only rounding can make it
    assert np.array_equal(natural_step(backwards, 0.01), np.zeros(2))


def test_the_natural_gradient_does_not_depend_on_the_parameters() -> None:
    """theta = B psi: a step of psi changes the policy as the step of theta does; a plain gradient's does not."""
    change_of_basis = jnp.asarray(rng.normal(size=(PARAMETERS, PARAMETERS)) + 2 * np.eye(PARAMETERS), jnp.float32)
    psi = jnp.linalg.solve(change_of_basis, jnp.asarray(THETA))

    def natural(kl: object, g: jax.Array, at: jax.Array) -> jax.Array:
        return natural_step(conjugate_gradient(fisher_vector_product(kl, at, 0.0), g, 40), 1e-3)

    plain = jax.grad(surrogate)(THETA)
    plain_psi = jax.grad(lambda psi: surrogate(change_of_basis @ psi))(psi)
    step = natural(kl, plain, jnp.asarray(THETA))
    step_psi = change_of_basis @ natural(lambda psi: kl(change_of_basis @ psi), plain_psi, psi)
    np.testing.assert_allclose(step_psi, step, rtol=2e-2, atol=1e-4)
    cosine = (
        plain @ (change_of_basis @ plain_psi) / jnp.linalg.norm(plain) / jnp.linalg.norm(change_of_basis @ plain_psi)
    )
    assert cosine < 0.95


def test_the_line_search_takes_the_first_step_that_is_accepted() -> None:
    seen = lambda x: (x[0] <= 0.3, {"where": x[0]})  # noqa: E731
    search = jax.jit(lambda start: line_search(seen, start, jnp.ones(1), 0.5, 10))(jnp.zeros(1))
    assert search.accepted and search.backtracks == 2  # 1, 0.5, 0.25
    assert search.parameters == 0.25 == search.seen["where"]


def test_refused_steps_change_no_bit() -> None:
    start = jnp.asarray([0.1, -0.0, 1e-30, np.float32(1) / 3])
    refuse = lambda x: (jnp.bool_(False), jnp.isnan(x).any())  # noqa: E731
    for step in (jnp.ones(4), jnp.full(4, jnp.nan)):
        search = line_search(refuse, start, step, 0.5, 3)
        assert not search.accepted and search.backtracks == 3
        assert np.asarray(search.parameters).tobytes() == np.asarray(start).tobytes()


def test_products_are_right_in_a_loop_of_a_batch() -> None:
    """Conjugate gradients under vmap, inside a loop: what training several seeds in one program does.

    XLA's CPU compiler once moved parts of the product out of the inner loop, and came to something else.
    """
    observation = jax.random.normal(jax.random.key(0), (3, 1024, 4))
    sizes = [(4, 64), (64, 64), (64, 2)]
    keys = jax.random.split(jax.random.key(1), 9)
    layers = [[0.3 * jax.random.normal(keys[3 * s + i], size) for i, size in enumerate(sizes)] for s in range(3)]
    layers = jax.tree.map(lambda *x: jnp.stack(x), *layers)

    def residuals(layers: list, observation: jax.Array) -> jax.Array:
        flat, unflatten = ravel_pytree(layers)

        def log_probs(flat: jax.Array) -> jax.Array:
            first, second, last = unflatten(flat)
            return jax.nn.log_softmax(jnp.tanh(jnp.tanh(observation @ first) @ second) @ last)

        def one(_: int, carry: tuple) -> tuple:
            flat, _ = carry
            old = log_probs(flat)
            change = lambda flat: (jnp.exp(old) * (old - log_probs(flat))).sum(-1).mean()  # noqa: E731
            g = jax.grad(lambda flat: log_probs(flat)[:, 0].mean())(flat)
            direction = conjugate_gradient(fisher_vector_product(change, flat, 0.1), g, 15)
            return flat + 0.01 * direction.x, direction.residual

        return jax.lax.fori_loop(0, 2, one, (flat, jnp.float32(0)))[1]

    assert jax.jit(jax.vmap(residuals))(layers, observation).max() < 1e-2
