"""K-FAC: the Fisher matrix of a network of dense and convolution layers, as one Kronecker product for each layer.

    F_l = E[vec(dW) vec(dW)^T] ~ A_l (x) S_l,   A = E[a a^T],   S = E[g g^T],   (A (x) S)^-1 vec(D) = vec(A^-1 D S^-1)

For the layer s = W^T a with weights W [in, out]: a [in] is its input, with a 1 at the end where the layer has a bias,
and g [out] is the gradient of log p(y | x) with respect to s, where y is drawn from the network's own distribution
(Martens and Grosse 2015, arXiv 1503.05671, sections 3 and 5). A convolution sums a a^T over its patches and averages
g g^T over them (Grosse and Martens 2016, arXiv 1602.01407, theorem 1), and so does a dense layer that is applied along
further dimensions. Layers are independent of each other in this approximation (the block diagonal).

It is the exact Fisher matrix where the network is one dense layer and g g^T is independent of a: always if the
distribution has the same Fisher matrix for all inputs (a Gaussian of fixed variance), else if there is but one input.

The network is left as it is: an interceptor of Flax's method calls reads the inputs of its layers and adds a zero to
their outputs, whose gradient is g. Parameters outside of dense and convolution layers need their Fisher block by name.

    kfac = KFAC(decay=0.95, damping=0.01)
    curvature = kfac.init(policy, observation, blocks={"log_std": 2.0})
    curvature = kfac.update(curvature, policy, observation, lambda distribution: distribution.log_prob(sample))
    direction = kfac.precondition(curvature, jax.grad(loss)(policy))
    step = trust_region(direction, grads, max_kl=0.01, limit=1.0)
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.linen.linear import canonicalize_padding
from jaxtyping import Array, Float, Int

from parnassus.networks import Network
from parnassus.types import BadInput, Count, Fraction, NonNegative, Tree, pytree

LogLikelihood = Callable[[Any], Float[Array, "B"]]  # the network's output -> log p(y | x) of a sample y for each input


class Factors(NamedTuple):
    """The two factors of one layer's block, or their inverses."""

    inputs: Float[Array, "i i"]  # A
    outputs: Float[Array, "o o"]  # S


class Curvature(NamedTuple):
    """All that K-FAC knows, by the names of layers ("torso/Dense_0") and of parameters ("log_std")."""

    factors: dict[str, Factors]  # running averages
    inverses: dict[str, Factors]  # of the damped factors, as last computed
    blocks: dict[str, Array]  # the Fisher diagonals of the parameters outside of layers, shaped like them
    updates: Int[Array, ""]


@pytree
class KFAC:
    """The factors as running averages, and their damped inverses."""

    decay: Fraction = 0.95  # of the running averages, which are plain means at first
    damping: NonNegative = 0.01  # lambda: F + lambda I is inverted, and factored to do so
    period: Count = 1  # updates between two looks at the curvature: factors and inverses are as old as that

    def init(self, network: Network, inputs: Tree, blocks: Mapping[str, float | Array] | None = None) -> Curvature:
        """No curvature yet, for a network that reads `inputs` [B, ...].

        `blocks` gives the exact Fisher diagonal of each parameter that is not a dense or convolution layer's, as a
        number or an array of its shape: {"log_std": 2.0} for a Gaussian's free log standard deviations, of which the
        Fisher matrix is 2 I whatever the mean. Raises BadInput, naming the layer, for what has neither.
        """
        blocks = dict(blocks or {})
        layers, kinds = _describe(network, inputs)
        parameters = {
            "/".join(str(key.key) for key in path): x for path, x in jax.tree.leaves_with_path(network.params)
        }
        for name, parameter in parameters.items():
            layer = name.rpartition("/")[0]
            if layer not in layers and name not in blocks:
                owner = f"layer {layer!r} ({kinds.get(layer, 'unknown')})" if layer else "the network itself"
                raise BadInput(
                    f"K-FAC knows dense and convolution layers, not the parameter {name!r} of {owner}, shape "
                    f"{parameter.shape}: use another network, or give the parameter's Fisher diagonal in `blocks`"
                )
        if unknown := set(blocks) - set(parameters):
            raise BadInput(f"K-FAC has blocks for {sorted(unknown)}, but the parameters are {sorted(parameters)}")
        identity = {name: Factors(jnp.eye(i), jnp.eye(o)) for name, (i, o) in layers.items()}
        zero = jax.tree.map(jnp.zeros_like, identity)
        diagonals = {name: jnp.broadcast_to(jnp.asarray(x), parameters[name].shape) for name, x in blocks.items()}
        return Curvature(zero, identity, diagonals, jnp.zeros((), jnp.int32))

    def update(self, curvature: Curvature, network: Network, inputs: Tree, log_likelihood: LogLikelihood) -> Curvature:
        """The curvature after a batch of inputs, leaves [B, ...].

        `log_likelihood` takes the network's outputs to log p(y | x) [B] of targets y that were drawn from the outputs
        themselves: with targets from elsewhere the factors are those of the "empirical Fisher", which is not the
        curvature of the KL divergence. A scalar regression with unit variance needs no draw: log p has the gradient
        y - x with square 1 in expectation, so `lambda value: value` gives the expectation over y.
        """
        # A loop of one or no trips and not a `cond`: under `vmap` a `cond` would look in every update.
        is_due = (curvature.updates % self.period == 0).astype(jnp.int32)
        look = lambda _, curvature: self.look(curvature, network, inputs, log_likelihood)  # noqa: E731
        looked = look(0, curvature) if self.period == 1 else jax.lax.fori_loop(0, is_due, look, curvature)
        return looked._replace(updates=curvature.updates + 1)

    def look(self, curvature: Curvature, network: Network, inputs: Tree, log_likelihood: LogLikelihood) -> Curvature:
        """`update` where it is due: a batch's factors into the running averages, and these inverted."""
        # Martens and Grosse 2015, section 5: the mean of all batches, until the running average is less noisy.
        weight = jnp.maximum(1 - self.decay, 1 / (curvature.updates // self.period + 1))
        new_factors = batch_factors(network, inputs, log_likelihood)
        factors = jax.tree.map(lambda old, new: old + weight * (new - old), curvature.factors, new_factors)
        return curvature._replace(
            factors=factors, inverses={name: self.invert(layer) for name, layer in factors.items()}
        )

    def invert(self, layer: Factors) -> Factors:
        """Factored Tikhonov: (A + pi sqrt(lambda) I)^-1 and (S + sqrt(lambda)/pi I)^-1.

        Their Kronecker product is (A (x) S + lambda I)^-1 but for cross terms, which are smallest with
        pi^2 = (tr(A) / dim A) / (tr(S) / dim S) (Martens and Grosse 2015, section 6.3).
        """
        tiny = 1e-12  # a layer that nothing flows through has factors of 0
        scale = lambda x: jnp.trace(x) / len(x) + tiny  # noqa: E731
        pi, root = jnp.sqrt(scale(layer.inputs) / scale(layer.outputs)), jnp.sqrt(self.damping)
        return Factors(_inverse(layer.inputs, pi * root), _inverse(layer.outputs, root / pi))

    def precondition(self, curvature: Curvature, grads: Network) -> Network:
        """(F + lambda I)^-1 grads, for gradients with respect to the network: the natural gradient."""
        params = grads.params
        for name, (inputs, outputs) in curvature.inverses.items():
            layer = _get(params, name)
            params = _set(params, name, _as_layer(inputs @ as_matrix(layer) @ outputs, layer))
        for name, diagonal in curvature.blocks.items():
            params = _set(params, name, _get(params, name) / (diagonal + self.damping))
        return Network(params, grads.module)


def trust_region(
    direction: Tree, grads: Tree, max_kl: float | Array, limit: float | Array
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The step size eta = min(limit, sqrt(2 max_kl / d^T F d)) and the KL divergence it predicts, eta^2 d^T F d / 2.

    `direction` is d = F^-1 `grads`, so d^T F d = d^T grads, with K-FAC's damped F (Wu et al. 2017, arXiv 1708.05144,
    section 3.2). That F lacks the terms between layers, which all move the output: the true KL can be several times
    the prediction.
    """
    curvature = jnp.maximum(optax.tree.vdot(direction, grads), 1e-20)  # no gradient, no step
    step = jnp.minimum(limit, jnp.sqrt(2 * max_kl / curvature))
    return step, 0.5 * step**2 * curvature


def batch_factors(network: Network, inputs: Tree, log_likelihood: LogLikelihood) -> dict[str, Factors]:
    """A and S of every layer over a batch of inputs, leaves [B, ...]; see `KFAC.update`."""

    def total(probes: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        activations: dict[str, Array] = {}

        def read(name: str, module: nn.Module, x: Array, s: Array) -> Array:
            activations[name] = _patches(name, module, x)
            return s + probes[name]

        outputs = _call(network, inputs, read)
        return log_likelihood(outputs).sum(), activations  # of one input each: its gradient is the input's own

    gradients, activations = jax.grad(total, has_aux=True)(_zero_probes(network, inputs))
    return {name: _factors(activations[name], gradients[name]) for name in gradients}


def as_matrix(layer: Mapping[str, Array]) -> Float[Array, "i o"]:
    """A layer's kernel, window and channels in the order of `_patches`, with the bias as its last row."""
    kernel = jnp.moveaxis(layer["kernel"], -2, 0)  # channel-major, [C, *window, O]
    kernel = kernel.reshape(-1, kernel.shape[-1])
    return jnp.concatenate([kernel, layer["bias"][None]]) if "bias" in layer else kernel


def _as_layer(matrix: Float[Array, "i o"], like: Mapping[str, Array]) -> dict[str, Array]:
    """The inverse of `as_matrix`."""
    *window, channels, out = like["kernel"].shape
    size = math.prod(window) * channels
    kernel = jnp.moveaxis(matrix[:size].reshape(channels, *window, out), 0, -2)
    return {"kernel": kernel, "bias": matrix[size]} if "bias" in like else {"kernel": kernel}


def _factors(activations: Float[Array, "B L i"], gradients: Float[Array, "B *L o"]) -> Factors:
    batch, places, _ = activations.shape
    a = activations.reshape(batch * places, -1)
    g = gradients.reshape(batch * places, -1)
    return Factors(a.T @ a / batch, g.T @ g / (batch * places))


def _inverse(x: Float[Array, "n n"], damping: Array) -> Float[Array, "n n"]:
    """(x + damping I)^-1 for positive semi-definite x, by Gauss-Jordan elimination; positive pivots need no search.

    65 x 65 takes 90 us on one CPU core, Cholesky and two triangular solves 55; but the solves are BLAS calls with
    threads of their own, which take milliseconds where other programs use the cores. This is ordinary XLA code.
    """
    index = jnp.arange(len(x))

    def eliminate(k: Array, x: Float[Array, "n n"]) -> Float[Array, "n n"]:
        row, column, pivot, is_k = x[k], x[:, k], x[k, k], index == k
        x = x - column[:, None] * (row / pivot)[None, :]
        x = jnp.where(is_k[:, None], (row / pivot)[None, :], x)
        x = jnp.where(is_k[None, :], (-column / pivot)[:, None], x)
        return jnp.where(is_k[:, None] & is_k[None, :], 1 / pivot, x)

    return jax.lax.fori_loop(0, len(x), eliminate, x + damping * jnp.eye(len(x)))


def _patches(name: str, module: nn.Module, x: Float[Array, "B ..."]) -> Float[Array, "B L i"]:
    """What each place of a layer's output is computed from, with a 1 at the end for the bias."""
    if isinstance(module, nn.Conv):
        window = (module.kernel_size,) if isinstance(module.kernel_size, int) else tuple(module.kernel_size)
        rank = len(window)
        padding = canonicalize_padding(module.padding, rank)
        every = lambda n: (n or 1,) * rank if n is None or isinstance(n, int) else tuple(n)  # noqa: E731
        plain = module.feature_group_count == 1 and module.mask is None
        if not plain or x.ndim != rank + 2 or padding in ("CIRCULAR", "CAUSAL", "REFLECT"):
            raise BadInput(
                f"K-FAC knows convolutions of one group, one batch dimension, zero padding and no mask, not {name!r}"
            )
        letters = "DHW"[-rank:]
        x = jax.lax.conv_general_dilated_patches(
            x,
            window,
            every(module.strides),
            padding,
            every(module.input_dilation),
            every(module.kernel_dilation),
            (f"N{letters}C", f"OI{letters}", f"N{letters}C"),
        )
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    return jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1) if module.use_bias else x


def _call(network: Network, inputs: Tree, read: Callable[[str, nn.Module, Array, Array], Array]) -> Any:
    """The network's output, where `read` (name, module, input, output) sees and returns each layer's output."""

    def interceptor(next_function: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        output = next_function(*args, **kwargs)
        if context.method_name != "__call__" or not _is_layer(context.module):
            return output
        return read("/".join(context.module.path), context.module, (*args, *kwargs.values())[0], output)

    with nn.intercept_methods(interceptor):
        return network(inputs)


def _is_layer(module: nn.Module) -> bool:
    return type(module) in (nn.Dense, nn.Conv)  # not their kin, which may do anything


def _describe(network: Network, inputs: Tree) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """The sizes (in, out) of every layer's matrix, and the kind of every module, by their names."""
    layers: dict[str, tuple[int, int]] = {}
    kinds: dict[str, str] = {}

    def read(name: str, module: nn.Module, x: Array, s: Array) -> Array:
        if name in layers:
            raise BadInput(f"K-FAC knows layers that are called once, not layer {name!r}, which is called again")
        layers[name] = (_patches(name, module, x).shape[-1], s.shape[-1])
        return s

    def note(next_function: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        kinds["/".join(context.module.path)] = type(context.module).__name__
        return next_function(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda: _call(network, inputs, read))
    return layers, kinds


def _zero_probes(network: Network, inputs: Tree) -> dict[str, Array]:
    shapes: dict[str, tuple[int, ...]] = {}

    def read(name: str, module: nn.Module, x: Array, s: Array) -> Array:
        shapes[name] = s.shape
        return s

    jax.eval_shape(lambda: _call(network, inputs, read))
    return {name: jnp.zeros(shape) for name, shape in shapes.items()}


def _get(tree: Any, name: str) -> Any:
    for part in name.split("/") if name else []:
        tree = tree[part]
    return tree


def _set(tree: Any, name: str, value: Any) -> Any:
    """The tree with the part of that name replaced."""
    first, _, rest = name.partition("/")
    return {**tree, first: _set(tree[first], rest, value)} if name else value
