"""What is data and what is static; which numbers are refused."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import pytest
from flax import linen as nn
from gymnasium import spaces

from parnassus.schedules import Linear
from parnassus.types import BadInput, Bounds, Count, Fraction, NonNegative, Spec, check, pytree


@pytree
class Everything:
    count: Count = 3
    real: float = 0.5
    fraction: Fraction | Linear = 0.25
    name: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = (1, 2)
    function: Callable[[float], float] = abs
    network: nn.Module | None = None
    maybe: float | None = None
    schedule: Linear = Linear(1.0)
    array: Any = None


def test_real_numbers_are_data_and_shapes_are_static() -> None:
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(Everything(array=jax.numpy.zeros(2)))]
    assert paths == [".real", ".fraction", ".schedule.start", ".schedule.end", ".schedule.fraction", ".array"]
    assert jax.tree.structure(Everything(count=4)) != jax.tree.structure(Everything())
    assert jax.tree.structure(Everything(real=4.0)) == jax.tree.structure(Everything())


def test_classes_with_equal_fields_are_told_apart() -> None:
    """Under `jax.tree_util.register_dataclass` they are not, and a jitted function may run one for the other."""

    @pytree
    class Double:
        factor: float = 2.0

    @pytree
    class Halve:
        factor: float = 2.0

    assert jax.tree.structure(Double()) != jax.tree.structure(Halve())
    assert jax.tree.structure(Double()) == jax.tree.structure(Double(3.0))


def test_a_pytree_is_rebuilt_whole() -> None:
    original = Everything(count=4, array=jax.numpy.zeros(2), maybe=1.5)
    doubled = jax.tree.map(lambda x: 2 * x, original)
    assert (doubled.count, doubled.real, doubled.maybe, doubled.function) == (4, 1.0, 3.0, abs)
    assert doubled.schedule == Linear(2.0, 2 * original.schedule.end, 2 * original.schedule.fraction)


def test_a_pytree_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Everything().count = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Everything(count=0), "count must be at least 1, not 0"),
        (Everything(fraction=-0.1), "fraction must be at least 0 and at most 1, not -0.1"),
        (Everything(real=float("nan")), "real must be a number, not nan"),
        (Everything(schedule=Linear(1.0, fraction=2.0)), "schedule.fraction must be at least 0 and at most 1, not 2.0"),
    ],
)
def test_numbers_out_of_bounds_are_named(config: Everything, message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}$"):
        check(config)


def test_numbers_within_bounds_pass() -> None:
    @pytree
    class Config:
        a: Annotated[float, Bounds(-1, 1)] = -1.0
        b: NonNegative = 0.0

    check(Config())
    check(Everything())


def test_specs_are_compared_by_value() -> None:
    def spec(n: int) -> Spec:
        return Spec(spaces.Box(-1, 1, (2,)), spaces.Discrete(n), 4)

    assert spec(2) == spec(2)
    assert hash(spec(2)) == hash(spec(2))
    assert spec(2) != spec(3)
