"""K-FAC against explicit Fisher matrices: exact where the factorisation is, else the explicit Kronecker product."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from parnassus.kfac import KFAC, Factors, as_matrix, batch_factors, trust_region
from parnassus.networks import Network
from parnassus.types import BadInput


class Linear(nn.Module):
    size: int = 3

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(self.size)(x)


class Convolutions(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Conv(3, (3, 2), (2, 1), padding="SAME")(x))
        x = nn.tanh(nn.Conv(2, (2, 2), padding=((1, 0), (0, 1)), use_bias=False)(x))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(2)(nn.LayerNorm()(x))


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        layer = nn.Dense(x.shape[-1])
        return layer(layer(x))


class Free(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(2)(x), self.param("log_std", nn.initializers.zeros, (2,))


def make(module: nn.Module, *shape: int) -> tuple[Network, Any]:
    x = jax.random.normal(jax.random.key(0), shape)
    return Network.create(module, jax.random.key(1), x), x


def log_likelihood(target: Any) -> Any:
    return lambda logits: (jax.nn.log_softmax(logits) * jax.nn.one_hot(target, logits.shape[-1])).sum(-1)


def gaussian(noise: Any) -> Any:
    """log N(y | mean, I) where y = mean + noise."""
    return lambda mean: -0.5 * ((jax.lax.stop_gradient(mean) + noise - mean) ** 2).sum(-1)


def test_one_gaussian_layer_has_the_exact_fisher_inverse() -> None:
    """S = I for every input, so g g^T is independent of a: F = E[a a^T] (x) I. The draws +-sqrt(3) e_i have S = I."""
    network, x = make(Linear(), 4, 2)
    x = jnp.tile(x, (3, 1))
    noise = np.sqrt(3.0) * jnp.repeat(jnp.eye(3), 4, axis=0)
    kfac = KFAC(damping=1e-9)
    curvature = kfac.update(kfac.init(network, x), network, x, gaussian(noise))
    flat, unravel = ravel_pytree(network)
    jacobian = jax.vmap(lambda o: jax.jacobian(lambda w: unravel(w)(o))(flat))(x)  # [B, outputs, parameters]
    fisher = jnp.einsum("bop,boq->pq", jacobian, jacobian) / len(x)
    grads = jax.random.normal(jax.random.key(2), flat.shape)
    ours, _ = ravel_pytree(kfac.precondition(curvature, unravel(grads)))
    np.testing.assert_allclose(ours, jnp.linalg.solve(fisher, grads), rtol=2e-3, atol=1e-3)


def test_one_softmax_layer_with_one_input_has_the_exact_fisher() -> None:
    """One input makes a a^T a constant; every class drawn as often as its probability says makes S exact."""
    network = Network({"Dense_0": {"kernel": jnp.zeros((2, 2)), "bias": jnp.log(jnp.array([0.25, 0.75]))}}, Linear(2))
    x = jnp.tile(jnp.array([[0.5, -2.0]]), (4, 1))
    (factors,) = batch_factors(network, x, log_likelihood(jnp.array([0, 1, 1, 1]))).values()
    p, a = jnp.array([0.25, 0.75]), jnp.array([0.5, -2.0, 1.0])
    fisher = jnp.kron(jnp.outer(a, a), jnp.diag(p) - jnp.outer(p, p))
    np.testing.assert_allclose(jnp.kron(factors.inputs, factors.outputs), fisher, atol=1e-6)


def test_several_layers_equal_the_explicit_kronecker_inverse() -> None:
    """Strides, paddings, with and without bias. The parameter order is that of numpy's kron: rows in, columns out."""
    network, x = make(Convolutions(), 5, 7, 6, 2)
    target = jnp.array([0, 1, 2, 0, 1])
    kfac = KFAC(damping=0.1)
    curvature = kfac.update(kfac.init(network, x), network, x, log_likelihood(target))
    grads = jax.grad(lambda n: log_likelihood(target)(n(x)).mean())(network)
    natural = kfac.precondition(curvature, grads)
    assert set(curvature.factors) == {"Conv_0", "Conv_1", "Dense_0"}
    for name, (a, s) in curvature.factors.items():
        a, s = np.asarray(a, np.float64), np.asarray(s, np.float64)
        pi = np.sqrt(np.trace(a) / len(a) / (np.trace(s) / len(s)))
        damped = np.kron(a + pi * np.sqrt(0.1) * np.eye(len(a)), s + np.sqrt(0.1) / pi * np.eye(len(s)))
        wanted = np.linalg.solve(damped, np.asarray(as_matrix(grads.params[name]), np.float64).ravel())
        np.testing.assert_allclose(as_matrix(natural.params[name]).ravel(), wanted, rtol=1e-3, atol=1e-5)


def test_a_convolution_over_one_place_is_a_dense_layer() -> None:
    """A window as large as the image: A and S by hand, so patches and kernels are in the same order."""

    class Whole(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Conv(3, (2, 3), padding="VALID")(x)[:, 0, 0]

    network, x = make(Whole(), 6, 2, 3, 2)
    target = jnp.array([0, 1, 2, 2, 1, 0])
    factors = batch_factors(network, x, log_likelihood(target))["Conv_0"]
    a = jnp.concatenate([jnp.moveaxis(x, -1, 1).reshape(6, -1), jnp.ones((6, 1))], axis=1)
    np.testing.assert_allclose(a @ as_matrix(network.params["Conv_0"]), network(x), atol=1e-5)
    g = jax.nn.one_hot(target, 3) - jax.nn.softmax(network(x))
    np.testing.assert_allclose(factors.inputs, a.T @ a / 6, atol=1e-5)
    np.testing.assert_allclose(factors.outputs, g.T @ g / 6, atol=1e-5)


def test_running_averages_are_means_first_and_decay_then() -> None:
    network, x = make(Linear(), 4, 2)
    kfac = KFAC(decay=0.6)
    curvature, seen = kfac.init(network, x), []
    for scale in (1.0, 2.0, 3.0):
        curvature = kfac.update(curvature, network, scale * x, lambda y: y.sum(-1))
        a = np.concatenate([scale * x, np.ones((4, 1))], axis=1)
        seen.append(a.T @ a / 4)
    # Weights of the new: 1, 1/2, then 1 - 0.6 because 1/3 is less.
    wanted = 0.6 * (seen[0] + seen[1]) / 2 + 0.4 * seen[2]
    np.testing.assert_allclose(curvature.factors["Dense_0"].inputs, wanted, rtol=1e-5)


@pytest.mark.parametrize("vmapped", [False, True])
def test_between_two_looks_nothing_changes(vmapped: bool) -> None:
    network, x = make(Linear(), 4, 2)
    kfac = KFAC(decay=0.9, period=2)
    update = lambda curvature, x: kfac.update(curvature, network, x, lambda y: y.sum(-1))  # noqa: E731
    update = jax.vmap(update, in_axes=(0, None)) if vmapped else update
    curvature = kfac.init(network, x)
    curvature = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), curvature) if vmapped else curvature
    steps = [curvature := update(curvature, scale * x) for scale in (1.0, 2.0, 3.0)]
    one = lambda leaf: leaf[0] if vmapped else leaf  # noqa: E731
    inputs = [one(step.factors["Dense_0"].inputs) for step in steps]
    inverses = [one(step.inverses["Dense_0"].inputs) for step in steps]
    np.testing.assert_array_equal(inputs[0], inputs[1])
    np.testing.assert_array_equal(inverses[0], inverses[1])
    x1 = np.concatenate([x, np.ones((4, 1))], axis=1)
    x3 = np.concatenate([3 * x, np.ones((4, 1))], axis=1)
    np.testing.assert_allclose(inputs[2], (x1.T @ x1 + x3.T @ x3) / 8, rtol=1e-5)  # the mean of two looks
    fresh = kfac.invert(Factors(*map(one, steps[2].factors["Dense_0"])))
    np.testing.assert_allclose(inverses[2], fresh.inputs, rtol=1e-4)


def test_named_blocks_are_divided_by_their_fisher_diagonal() -> None:
    network, x = make(Free(), 4, 2)
    kfac = KFAC(damping=0.5)
    curvature = kfac.init(network, x, {"log_std": 2.0})
    natural = kfac.precondition(curvature, jax.tree.map(jnp.ones_like, network))
    np.testing.assert_allclose(natural.params["log_std"], [0.4, 0.4], rtol=1e-6)


def test_what_it_does_not_know_is_refused_by_name() -> None:
    kfac = KFAC()
    with pytest.raises(BadInput, match=r"layer 'LayerNorm_0' \(LayerNorm\)"):
        kfac.init(*make(Normalised(), 4, 2))
    with pytest.raises(BadInput, match="'log_std' of the network itself"):
        kfac.init(*make(Free(), 4, 2))
    with pytest.raises(BadInput, match="layer 'Dense_0', which is called again"):
        kfac.init(*make(Twice(), 4, 2))
    with pytest.raises(BadInput, match=r"blocks for \['scale'\]"):
        kfac.init(*make(Linear(), 4, 2), {"scale": 1.0})


def test_the_step_is_the_longest_inside_the_trust_region() -> None:
    fisher, grads = jnp.diag(jnp.array([4.0, 0.25])), jnp.array([1.0, -2.0])
    direction = jnp.linalg.solve(fisher, grads)
    step, predicted = trust_region(direction, grads, 0.01, 100.0)
    assert 0.5 * step**2 * direction @ fisher @ direction == pytest.approx(0.01, rel=1e-5) == float(predicted)
    step, predicted = trust_region(direction, grads, 0.01, 1e-3)
    assert step == pytest.approx(1e-3) and predicted < 0.01
