"""Steps measured in the policy and not in its parameters: Fisher-vector products, conjugate gradients, a line search.

    KL(pi_theta || pi_{theta + d}) = d^T F d / 2 + O(|d|^3),     F = E[grad log pi grad log pi^T] = Hessian of the KL

F has a row for each parameter and is never formed: conjugate gradients need only products F x, and one of those costs
about as much as two gradients. Parameters are flat vectors [P] here; `jax.flatten_util.ravel_pytree` makes them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Vector = Float[Array, "P"]
Product = Callable[[Vector], Vector]


def fisher_vector_product(kl: Callable[[Vector], Float[Array, ""]], at: Vector, damping: float | Array) -> Product:
    """x -> F x + damping x, the derivative of (grad KL)^T x (Schulman et al. 2015, appendix C.1).

    `kl` is the mean KL(pi_at || pi_theta) as a function of theta, whose gradient at `at` is 0 and whose Hessian there
    is F. The gradient is linearised once, so that each product only pushes x forward through it. `damping` keeps the
    directions that no observation of the batch tells anything about from growing without end.
    """
    _, push = jax.linearize(jax.grad(kl), at)
    # The barrier keeps XLA's CPU compiler (jaxlib 0.10.2 to 0.12.0) from moving parts of a product out of the loop of
    # conjugate gradients: under `vmap` inside another loop it then returns something else than F x.
    return lambda x: push(jax.lax.optimization_barrier(x)) + damping * x


class Direction(NamedTuple):
    """An approximate solution of F x = g."""

    x: Vector
    product: Vector  # F x
    residual: Float[Array, ""]  # |F x - g| / |g|


def conjugate_gradient(product: Product, g: Vector, iterations: int) -> Direction:
    """The natural gradient F^-1 g, by so many iterations of conjugate gradients at most (Hestenes and Stiefel 1952).

    In exact arithmetic as many iterations as F has different eigenvalues suffice; ten or so get close.
    """
    x, _ = jax.scipy.sparse.linalg.cg(product, g, maxiter=iterations, tol=1e-5)
    fx = product(x)  # one product more, which the length of the step needs anyway
    return Direction(x, fx, jnp.linalg.norm(fx - g) / (jnp.linalg.norm(g) + 1e-20))


def natural_step(direction: Direction, max_kl: float | Array, limit: float | Array = jnp.inf) -> Vector:
    """min(limit, sqrt(2 delta / x^T F x)) x: as far along x as the quadratic model of the KL allows (Kakade 2001).

    Where F x = g, x^T F x is g^T F^-1 g. No direction, no step. The `limit` is for a g that is nothing but noise: the
    KL alone would stretch that to a step as long as any other.
    """
    curvature = direction.x @ direction.product
    longest = jnp.sqrt(2 * max_kl / jnp.maximum(curvature, 1e-20))
    return jnp.where(curvature > 0, jnp.minimum(limit, longest), 0.0) * direction.x


class Search(NamedTuple):
    """What a line search came to."""

    parameters: Vector
    accepted: Bool[Array, ""]
    backtracks: Int[Array, ""]  # how many steps were refused
    seen: Any  # what `check` said of the parameters it accepted, or refused last


def line_search(
    check: Callable[[Vector], tuple[Bool[Array, ""], Any]],
    start: Vector,
    step: Vector,
    shrinking: float | Array,
    max_backtracks: int,
) -> Search:
    """The first of start + shrinking^j step, j = 0 ... max_backtracks - 1, that `check` accepts; else `start` itself.

    `check` returns whether, and anything that is worth keeping of what it computed (Schulman et al. 2015, appendix C).
    """

    def attempt(backtracks: Array) -> Search:
        candidate = start + shrinking**backtracks * step
        accepted, seen = check(candidate)
        return Search(candidate, accepted, jnp.where(accepted, backtracks, backtracks + 1), seen)

    search = jax.lax.while_loop(
        lambda search: ~search.accepted & (search.backtracks < max_backtracks),
        lambda search: attempt(search.backtracks),
        attempt(jnp.int32(0)),
    )
    # `start` and not start + 0 step: a refused step leaves every bit as it was.
    return search._replace(parameters=jnp.where(search.accepted, search.parameters, start))
