"""How programs are compiled for the CPU: in which order XLA runs their kernels.

Its default order serves to run several kernels at once, and hands even the smallest from thread to thread; in the
other, one follows the other. Large kernels gain by the first, small ones lose much by it: the same PPO takes 0.78 times
as long in the second on minibatches of 128, and 1.13 times as long on 4,096. The kernels are the same in both, and the
results but for rounding; which order is chosen depends on the program alone.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Jaxpr, subjaxprs

ONE_AFTER_THE_OTHER = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
LARGE = 2**24  # operations of a product; measured: 8 million gain 6% one after the other, 34 million lose 5 to 14%


class Program:
    """`jax.jit`, on the CPU with kernels one after the other where no matrix product is large."""

    def __init__(self, function: Callable, **options: Any) -> None:
        self.side_by_side = jax.jit(function, **options)
        self.one_after_the_other = jax.jit(function, compiler_options=ONE_AFTER_THE_OTHER, **options)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Choose, and call what was chosen: for calls that take long, since choosing takes a millisecond."""
        return self.chosen(*arguments, **named)(*arguments, **named)

    def chosen(self, *arguments: Any, **named: Any) -> Callable:
        """The compiled function for arguments of these shapes. It is traced once for both orders."""
        if jax.default_backend() != "cpu":
            return self.side_by_side
        is_large = largest_product(self.trace(*arguments, **named).jaxpr.jaxpr) >= LARGE
        return self.side_by_side if is_large else self.one_after_the_other

    def chosen_once(self) -> Callable:
        """A function that chooses at its first call: for short calls that are all alike."""
        function: Callable | None = None

        def call(*arguments: Any) -> Any:
            nonlocal function
            function = function or self.chosen(*arguments)
            return function(*arguments)

        return call

    def trace(self, *arguments: Any, **named: Any) -> Any:
        """As that of a `jax.jit`."""
        return self.side_by_side.trace(*arguments, **named)


def largest_product(jaxpr: Jaxpr) -> int:
    """The floating-point operations of the largest matrix product in a program, its loops and branches included.

    2 m n k for [m, k] times [k, n]; a batch of products counts as one of them, since XLA does not spread it on threads.
    """
    here = [_operations(equation) for equation in jaxpr.eqns if equation.primitive.name == "dot_general"]
    return max([*here, *map(largest_product, subjaxprs(jaxpr))], default=0)


def _operations(product: Any) -> int:
    (contracted, _), (batched, _) = product.params["dimension_numbers"]
    left, right = (x.aval.shape for x in product.invars)
    batch, inner = (math.prod(left[i] for i in dimensions) for dimensions in (batched, contracted))
    return 2 * math.prod(left) * math.prod(right) // (batch**2 * inner) if math.prod(left) else 0
