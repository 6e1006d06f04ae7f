"""Every supported space becomes float32 arrays of a stated layout; statistics only touch vectors."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.encoding import Encoder, zeros
from parnassus.types import BadInput

MIXED = spaces.Dict(
    {
        "z": spaces.Box(-1, 1, (2, 2), np.float64),
        "a": spaces.Discrete(3, start=-1),
        "m": spaces.Tuple((spaces.MultiDiscrete([2, 3], start=[0, 5]), spaces.MultiBinary(2))),
        "i": spaces.Box(0, 255, (8, 9, 3), np.uint8),
    }
)


def test_each_part_of_a_mixed_observation() -> None:
    observation = {
        "z": np.arange(8.0).reshape(2, 2, 2),
        "a": np.array([-1, 1]),
        "m": (np.array([[0, 5], [1, 7]]), np.array([[1, 0], [0, 1]])),
        "i": np.full((2, 8, 9, 3), 51, np.uint8),
    }
    encoded = Encoder.create(MIXED)(jax.tree.map(jnp.asarray, observation))
    np.testing.assert_array_equal(encoded["z"], np.arange(8.0).reshape(2, 4))
    np.testing.assert_array_equal(encoded["a"], [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(encoded["m"][0], [[1, 0, 1, 0, 0], [0, 1, 0, 0, 1]])
    np.testing.assert_array_equal(encoded["m"][1], [[1, 0], [0, 1]])
    np.testing.assert_allclose(encoded["i"], np.full((2, 8, 9, 3), 0.2), rtol=1e-6)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(encoded))
    assert Encoder.create(MIXED).are_images == (False, True, False, False, False)  # a, i, m, m, z


def test_images_with_channels_first_are_turned() -> None:
    image = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(1, 4, 6, 5)
    encoded = Encoder.create(spaces.Box(0, 255, (4, 6, 5), np.uint8))(jnp.asarray(image))
    assert encoded.shape == (1, 6, 5, 4)
    assert encoded[0, 3, 2, 1] == pytest.approx(image[0, 1, 3, 2] / 255)


@pytest.mark.parametrize("batch", [(), (5,), (3, 4)])
def test_any_batch_dimensions(batch: tuple[int, ...]) -> None:
    encoded = Encoder.create(MIXED)(jax.tree.map(jnp.asarray, zeros(MIXED, batch)))
    assert encoded["z"].shape == (*batch, 4)
    assert encoded["a"].shape == (*batch, 3)
    assert encoded["i"].shape == (*batch, 8, 9, 3)


def test_normalisation_standardises_vectors_and_leaves_the_rest() -> None:
    space = spaces.Dict({"v": spaces.Box(-np.inf, np.inf, (2,), np.float32), "c": spaces.Discrete(2)})
    rng = np.random.default_rng(0)
    batch = {"v": rng.normal([3.0, -1.0], [2.0, 0.5], (100, 10, 2)).astype(np.float32), "c": np.ones((100, 10), int)}
    batch = jax.tree.map(jnp.asarray, batch)
    encoder = Encoder.create(space, normalize=True)
    np.testing.assert_array_equal(encoder(batch)["v"], np.clip(batch["v"], -10, 10))  # nothing seen: unchanged
    encoder = encoder.update(batch)
    out = encoder(batch)
    np.testing.assert_allclose(out["v"].mean((0, 1)), [0, 0], atol=1e-4)
    np.testing.assert_allclose(out["v"].std((0, 1)), [1, 1], atol=1e-4)
    np.testing.assert_array_equal(out["c"], np.tile([0.0, 1.0], (100, 10, 1)))


def test_the_layout_is_a_value() -> None:
    a, b = Encoder.create(MIXED), Encoder.create(MIXED)
    assert a.layout == b.layout
    assert hash(a.layout) == hash(b.layout)
    assert jax.tree.structure(a) == jax.tree.structure(b)


def test_zeros_are_what_jax_keeps() -> None:
    example = zeros(MIXED, (3,))
    assert example["z"].dtype == np.float32
    assert example["a"].dtype == np.int32
    assert example["i"].dtype == np.uint8
    assert example["m"][1].shape == (3, 2)


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Dict({"a": spaces.Sequence(spaces.Discrete(2))})])
def test_other_spaces_are_refused(space: gymnasium.Space) -> None:
    with pytest.raises(BadInput, match="no network here can read observations from"):
        Encoder.create(space)
