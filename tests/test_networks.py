"""Shapes, initial values and the differentiable Network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from gymnasium import spaces

from parnassus import DDPG, SAC, TD3, DoubleQ
from parnassus.distributions import DiagonalGaussian, SquashedGaussian, parameterize
from parnassus.networks import CNN, MLP, Critics, Network, Policy, Torso, Value, activation, convolution, polyak
from parnassus.types import BadInput, Spec

BOX = spaces.Box(-1, 1, (3,), np.float32)


def test_a_network_is_differentiated_with_respect_to_itself() -> None:
    network = Network.create(MLP((2,), "tanh"), jax.random.key(0), jnp.zeros((1, 3)))
    gradient = jax.grad(lambda f: f(jnp.ones((4, 3))).sum())(network)
    assert jax.tree.structure(gradient) == jax.tree.structure(network)
    bias = gradient.params["Dense_0"]["bias"]
    np.testing.assert_allclose(bias, 4 * (1 - network(jnp.ones((1, 3)))[0] ** 2), rtol=1e-5)


def test_orthogonal_layers_are_orthogonal() -> None:
    kernel = Network.create(MLP((5,)), jax.random.key(0), jnp.zeros((1, 8))).params["Dense_0"]["kernel"]
    np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(5), atol=1e-5)  # the gain is sqrt(2)


@pytest.mark.parametrize("algorithm", [DDPG, DoubleQ, SAC, TD3])
@pytest.mark.parametrize("initial_weights", ["normal", "uniform"])
def test_uniform_weights_are_within_one_over_the_root_of_the_fan_in(algorithm: Any, initial_weights: Any) -> None:
    spec = Spec(spaces.Box(-1, 1, (20,), np.float32), BOX, 1)
    learner = algorithm(initial_weights=initial_weights, replay_size=1).init(jax.random.key(0), spec)
    kernels = {
        jax.tree_util.keystr(path): kernel
        for path, kernel in jax.tree.leaves_with_path(learner._replace(optimizers=None))
        if "kernel" in jax.tree_util.keystr(path)
    }
    if algorithm is SAC:  # its policy's last layer is small, so that the first actions are centred
        del kernels[".policy.params['Dense_0']['kernel']"]
    assert len(kernels) >= 12  # three layers of a policy, a critic and their targets
    scaled = [np.abs(kernel) * np.sqrt(len(kernel)) for kernel in kernels.values()]
    assert all((0.95 < kernel.max() <= 1.0) == (initial_weights == "uniform") for kernel in scaled)


@pytest.mark.parametrize("batch", [(), (2,), (4, 2)])
def test_any_batch_dimensions(batch: tuple[int, ...]) -> None:
    observation = {"image": jnp.zeros((*batch, 10, 10, 4)), "vector": jnp.zeros((*batch, 3))}
    torso = Torso((True, False), (16,))
    value = Network.create(Value(torso), jax.random.key(0), observation)
    policy = Network.create(Policy(torso, parameterize(BOX)), jax.random.key(1), observation)
    critics = Network.create(
        Critics((torso.clone(), torso.clone())), jax.random.key(2), observation, jnp.zeros((*batch, 3))
    )
    assert value(observation).shape == batch
    assert policy(observation).mode().shape == (*batch, 3)
    assert critics(observation, jnp.zeros((*batch, 3))).shape == (*batch, 2)


@pytest.mark.parametrize(("size", "features"), [(10, 8 * 8 * 16), (84, 7 * 7 * 64)])
def test_image_networks_of_the_papers(size: int, features: int) -> None:
    image = jnp.zeros((2, size, size, 4))
    assert Network.create(CNN(), jax.random.key(0), image)(image).shape == (2, features)


def test_critics_share_nothing() -> None:
    torso = Torso((False,), (8,), "relu")
    critics = Network.create(
        Critics((torso.clone(), torso.clone())), jax.random.key(0), jnp.ones((1, 2)), jnp.ones((1, 1))
    )
    q = critics(jnp.ones((1, 2)), jnp.ones((1, 1)))
    assert q[0, 0] != q[0, 1]
    first = jax.grad(lambda f: f(jnp.ones((1, 2)), jnp.ones((1, 1)))[0, 0])(critics)
    touched = {name for name, part in first.params.items() if any(np.any(x) for x in jax.tree.leaves(part))}
    assert len(touched) == len(critics.params) / 2


def test_a_free_or_a_state_dependent_spread() -> None:
    observation = jnp.ones((5, 2))
    free = Network.create(Policy(MLP((4,)), parameterize(BOX)), jax.random.key(0), observation)
    assert isinstance(free(observation), DiagonalGaussian)
    assert free.params["log_std"].shape == (3,)
    state = Network.create(
        Policy(MLP((4,)), parameterize(BOX, squash=True), std="state"), jax.random.key(0), observation
    )
    assert isinstance(state(observation), SquashedGaussian)
    assert state(observation).log_std.shape == (5, 3)
    np.testing.assert_allclose(state(observation).mode(), 0, atol=0.1)  # the first policy is nearly centred


def test_no_hidden_layers_is_a_linear_policy() -> None:
    policy = Network.create(
        Policy(Torso((False,), ()), parameterize(spaces.Discrete(2))), jax.random.key(0), jnp.zeros((1, 4))
    )
    assert len(jax.tree.leaves(policy)) == 2
    x = jax.random.normal(jax.random.key(1), (4,))
    logits = lambda x: policy(x).logits  # noqa: E731
    np.testing.assert_allclose(logits(2 * x), 2 * logits(x), rtol=1e-5)


def test_a_module_of_ones_own() -> None:
    class Mine(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.LayerNorm()(nn.Dense(7)(x))

    value = Network.create(Value(Mine()), jax.random.key(0), jnp.zeros((1, 4)))
    assert value(jnp.zeros((6, 4))).shape == (6,)


def test_polyak_moves_a_part_of_the_way() -> None:
    assert polyak({"w": jnp.zeros(2)}, {"w": jnp.array([1.0, -2.0])}, 0.25)["w"].tolist() == [0.25, -0.5]


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(BadInput, match="unknown activation 'tan'; choose one of tanh, relu"):
        Network.create(MLP((2,), "tan"), jax.random.key(0), jnp.zeros((1, 3)))


def test_unknown_initial_weights_are_named() -> None:
    with pytest.raises(BadInput, match="unknown initial weights 'even'; choose one of orthogonal, normal, uniform"):
        Network.create(MLP((2,), initial_weights="even"), jax.random.key(0), jnp.zeros((1, 3)))


def test_swish_and_its_derivative_are_flaxs() -> None:
    x = jnp.linspace(-30.0, 30.0, 241)
    ours = jax.vmap(jax.value_and_grad(activation("swish")))(x)
    np.testing.assert_allclose(ours, jax.vmap(jax.value_and_grad(nn.swish))(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "extent", "stride"), [((84, 84), 8, 4), ((20, 20), 4, 2), ((10, 7), 3, 1), ((9, 12), 2, 3)]
)
def test_a_convolution_by_patches_is_the_convolution(size: tuple[int, int], extent: int, stride: int) -> None:
    image_key, kernel_key = jax.random.split(jax.random.key(0))
    images = jax.random.normal(image_key, (2, *size, 3))
    kernel = jax.random.normal(kernel_key, (extent, extent, 3, 5))
    numbers = ("NHWC", "HWIO", "NHWC")

    def both(operation: Callable) -> tuple:
        result, pull_back = jax.vjp(
            lambda x, k: operation(x, k, (stride, stride), "VALID", dimension_numbers=numbers), images, kernel
        )
        return result, *pull_back(jnp.cos(jnp.arange(float(result.size))).reshape(result.shape))

    for found, wanted in zip(both(convolution), both(jax.lax.conv_general_dilated), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-3, rtol=1e-4)
