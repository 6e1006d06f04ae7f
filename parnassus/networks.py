"""Networks: Flax Linen modules, and `Network`, a module together with its parameters.

An algorithm's `network` option takes any `nn.Module` that maps the encoded observation (see `parnassus.encoding`) with
any leading batch dimensions to features [*batch, F]; the heads below make a policy or a value function of it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Num

from parnassus.distributions import Distribution, Parameterization
from parnassus.types import BadInput, Key, Tree, pytree

ACTIVATIONS: dict[str, Callable] = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "swish": lambda x: 0.5 * x * (1.0 + jnp.tanh(0.5 * x)),  # x sigmoid(x), by what XLA has the faster code for
}


INITIAL_WEIGHTS: dict[str, Callable] = {
    "orthogonal": nn.initializers.orthogonal(np.sqrt(2)),  # Saxe et al. 2014; as PPO's reference code
    "normal": nn.initializers.lecun_normal(),  # of variance 1 / fan-in
    "uniform": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),  # within 1 / sqrt(fan-in)
}


@pytree
class Network:
    """A function to differentiate with respect to itself: `jax.grad(loss)(network)` is a Network of gradients."""

    params: Tree
    module: nn.Module  # static

    @classmethod
    def create(cls, module: nn.Module, key: Key, *inputs: Tree) -> "Network":
        """Fresh parameters for inputs shaped like `inputs`."""
        return cls(module.init(key, *inputs)["params"], module)

    def __call__(self, *inputs: Tree) -> Tree:
        """The module's output."""
        return self.module.apply({"params": self.params}, *inputs)


def polyak(target: Tree, online: Tree, tau: float | Array) -> Tree:
    """target + tau (online - target), leaf by leaf: the slow copy that bootstrapped targets use."""
    return jax.tree.map(lambda t, o: t + tau * (o - t), target, online)


def pick(values: Float[Array, "B A"], action: Int[Array, "B"]) -> Float[Array, "B"]:
    """values[b, action[b]], by a product: XLA gathers slowly on the CPU."""
    return (values * jax.nn.one_hot(action, values.shape[-1])).sum(-1)


def activation(name: str) -> Callable:
    """The activation function of that name. Raises BadInput."""
    return _choose("activation", name, ACTIVATIONS)


def initializer(name: str) -> Callable:
    """The initial weights of that name. Raises BadInput."""
    return _choose("initial weights", name, INITIAL_WEIGHTS)


def _choose(what: str, name: str, choices: dict[str, Callable]) -> Callable:
    if name not in choices:
        raise BadInput(f"unknown {what} {name!r}; choose one of {', '.join(choices)}")
    return choices[name]


class MLP(nn.Module):
    """Dense layers, each followed by the activation; [*batch, F] -> [*batch, sizes[-1]]. No layers: the identity."""

    sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    initial_weights: str = "orthogonal"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch f"]) -> Float[Array, "*batch g"]:
        for size in self.sizes:
            layer = nn.Dense(size, kernel_init=initializer(self.initial_weights))
            x = activation(self.activation)(layer(x))
        return x


def convolution(
    images: Float[Array, "b h w c"],
    kernel: Float[Array, "k l c f"],
    strides: Sequence[int],
    padding: Any,
    **others: Any,
) -> Float[Array, "b i j f"]:
    """`lax.conv_general_dilated` for channels last; on the CPU as a matrix product with the patches under the kernel.

    Inside `scan` and `cond`, where learning happens, XLA's own on the CPU take many times as long as outside; products
    are as fast in both.
    """
    if jax.default_backend() != "cpu" or padding != "VALID":
        return jax.lax.conv_general_dilated(images, kernel, strides, padding, **others)
    height, width, channels, features = kernel.shape
    rows, columns = (
        np.arange(0, size - extent + 1, stride)[:, None] + np.arange(extent)
        for size, extent, stride in zip(images.shape[1:3], (height, width), strides, strict=True)
    )
    patches = images[:, rows[:, None, :, None], columns[None, :, None, :]]  # [b, i, j, k, l, c]
    return patches.reshape(*patches.shape[:3], height * width * channels) @ kernel.reshape(-1, features)


class CNN(nn.Module):
    """The convolutions of Mnih et al. 2015 for images [*batch, H, W, C]; for images below 36 pixels (MinAtar) one 3x3
    layer as in Young & Tian 2019. Flattened to [*batch, F]."""

    @nn.compact
    def __call__(self, x: Float[Array, "*batch h w c"]) -> Float[Array, "*batch f"]:
        small = min(x.shape[-3:-1]) < 36
        layers = [(16, 3, 1)] if small else [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
        for features, size, stride in layers:
            init = nn.initializers.orthogonal(np.sqrt(2))
            layer = nn.Conv(
                features,
                (size, size),
                (stride, stride),
                padding="VALID",
                kernel_init=init,
                conv_general_dilated=convolution,
            )
            x = layer(x)
            x = nn.relu(x)
        return x.reshape(*x.shape[:-3], -1)


class Torso(nn.Module):
    """Any encoded observation -> features: images through a CNN each, everything side by side, then an MLP."""

    images: tuple[bool, ...]  # for each leaf of the encoded observation: is it an image
    sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    initial_weights: str = "orthogonal"

    @nn.compact
    def __call__(self, observation: Tree, *others: Array) -> Float[Array, "*batch f"]:
        leaves = zip(self.images, jax.tree.leaves(observation), strict=True)
        parts = [CNN()(x) if is_image else x for is_image, x in leaves] + list(others)
        x = jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        sizes = self.sizes or ((128,) if any(self.images) else ())
        return MLP(sizes, self.activation, self.initial_weights)(x)


class Policy(nn.Module):
    """Features -> the distribution of actions.

    `std` says where a Gaussian's log standard deviation comes from: "free" is a parameter of its own, the same in every
    state (Schulman et al. 2017); "fixed" is the same, but no gradient reaches it; "state" is a second output of the
    network, clipped to [-20, 2] (Haarnoja et al. 2018).
    """

    torso: nn.Module
    head: Parameterization
    std: Literal["free", "fixed", "state"] = "free"
    output_scale: float = 0.01  # a nearly uniform (or centred) first policy: Andrychowicz et al. 2021, section 3.2

    @nn.compact
    def __call__(self, observation: Tree) -> Distribution:
        features, size = self.torso(observation), self.head.num_outputs
        init = nn.initializers.orthogonal(self.output_scale)
        if not self.head.needs_log_std:
            return self.head.build(nn.Dense(size, kernel_init=init)(features))
        if self.std != "state":
            mean = nn.Dense(size, kernel_init=init)(features)
            log_std = self.param("log_std", nn.initializers.zeros, (size,))
            return self.head.build(mean, jax.lax.stop_gradient(log_std) if self.std == "fixed" else log_std)
        mean, log_std = jnp.split(nn.Dense(2 * size, kernel_init=init)(features), 2, axis=-1)
        return self.head.build(mean, jnp.clip(log_std, -20.0, 2.0))


class DeterministicPolicy(nn.Module):
    """Features -> one action in [-1, 1], [*batch, *shape]: tanh of a linear layer."""

    torso: nn.Module
    shape: tuple[int, ...]  # of an action
    initial_weights: str = "normal"

    @nn.compact
    def __call__(self, observation: Tree) -> Float[Array, "..."]:
        layer = nn.Dense(int(np.prod(self.shape)), kernel_init=initializer(self.initial_weights))
        action = jnp.tanh(layer(self.torso(observation)))
        return action.reshape(*action.shape[:-1], *self.shape)


class Value(nn.Module):
    """Features -> V(o), [*batch]."""

    torso: nn.Module

    @nn.compact
    def __call__(self, observation: Tree) -> Float[Array, "*batch"]:
        return nn.Dense(1, kernel_init=nn.initializers.orthogonal(1.0))(self.torso(observation))[..., 0]


class ActionValue(nn.Module):
    """Q(o, a), [*batch]: for discrete actions an output for each, for real ones features of observation and action."""

    torso: nn.Module
    num_actions: int | None  # None: real actions
    action_dims: int = 0  # how many dimensions one action has
    initial_weights: str = "normal"

    @nn.compact
    def __call__(self, observation: Tree, action: Num[Array, "..."]) -> Float[Array, "*batch"]:
        init = initializer(self.initial_weights)
        if self.num_actions is None:
            action = action.reshape(*action.shape[: action.ndim - self.action_dims], -1)
            return nn.Dense(1, kernel_init=init)(self.torso(observation, action))[..., 0]
        values = nn.Dense(self.num_actions, kernel_init=init)(self.torso(observation))
        return (values * jax.nn.one_hot(action, self.num_actions)).sum(-1)


class ActionValues(nn.Module):
    """Q(o, .) of all discrete actions at once, [*batch, A].

    Dueling: V(o) + A(o, a) - mean_a' A(o, a') on the same features (Wang et al. 2016, equation 9).
    """

    torso: nn.Module
    num_actions: int
    dueling: bool = False

    @nn.compact
    def __call__(self, observation: Tree) -> Float[Array, "*batch A"]:
        features = self.torso(observation)
        values = nn.Dense(self.num_actions)(features)
        return nn.Dense(1)(features) + values - values.mean(-1, keepdims=True) if self.dueling else values


class PolicyAndValue(nn.Module):
    """Both heads on one torso: pi(. | o) and V(o) for one pass through the hidden layers. The heads read features."""

    torso: nn.Module
    policy: Policy
    value: Value

    def __call__(self, observation: Tree) -> tuple[Distribution, Float[Array, "*batch"]]:
        features = self.torso(observation)
        return self.policy(features), self.value(features)


class Critics(nn.Module):
    """Several independent Q(o, a) side by side: [*batch, num_critics].

    One module for all: their first layers read the same input.
    """

    torsos: Sequence[nn.Module]
    initial_weights: str = "normal"

    @nn.compact
    def __call__(self, observation: Tree, action: Float[Array, "*batch a"]) -> Float[Array, "*batch k"]:
        init = initializer(self.initial_weights)
        each = [nn.Dense(1, kernel_init=init)(torso(observation, action)) for torso in self.torsos]
        return jnp.concatenate(each, axis=-1)


def first_critic(critics: Network) -> Network:
    """The first of `Critics`, [*batch, 1], with nothing computed for the others."""
    return Network(critics.params, Critics(critics.module.torsos[:1]))
