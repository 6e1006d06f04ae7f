"""Spaces as a model sees them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.types import BadInput, Spec
from parnassus.world_models.interface import Interface

VECTOR = spaces.Box(-1, 1, (3,), np.float32)


def test_a_class_is_one_hot() -> None:
    interface = Interface.of(Spec(VECTOR, spaces.Discrete(3, start=5), 1))
    assert interface.encode(jnp.int32(2)).tolist() == [0.0, 0.0, 1.0]
    assert interface.action_space == spaces.Discrete(3) and interface.action_size == 3
    assert interface.observation_space.shape == (3,)


def test_real_actions_are_clipped_where_they_are_bounded() -> None:
    box = spaces.Box(np.array([[0.0, -np.inf]], np.float32), np.array([[10.0, np.inf]], np.float32))
    interface = Interface.of(Spec(VECTOR, box, 1))
    assert interface.encode(jnp.array([[3.0, 3.0]])).tolist() == [1.0, 3.0]
    space = interface.action_space
    assert space.shape == (1, 2) and space.low.tolist() == [[-1.0, -np.inf]] and space.high.tolist() == [[1.0, np.inf]]
    batch = jax.vmap(interface.encode)(jnp.zeros((7, 1, 2)))
    assert batch.shape == (7, interface.action_size)


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (spaces.Box(0, 255, (8, 8, 1), np.uint8), spaces.Discrete(2), "learns vectors .* not observations from Box"),
        (spaces.Discrete(3), spaces.Discrete(2), "learns vectors .* not observations from Discrete"),
        (VECTOR, spaces.MultiBinary(2), "knows Discrete and Box actions, not MultiBinary"),
    ],
)
def test_other_spaces_are_refused(observations: spaces.Space, actions: spaces.Space, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Interface.of(Spec(observations, actions, 1))
