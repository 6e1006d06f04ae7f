"""The size of a program's products, the order that it chooses, and that it is traced once for both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import training
from parnassus.collect import ScanCollector
from parnassus.compilation import LARGE, Program, largest_product
from parnassus.envs.classic import CartPole
from tests.tiny_runs import tiny_ppo


def operations(function, *shapes: tuple[int, ...]) -> int:
    return largest_product(jax.make_jaxpr(function)(*map(jnp.zeros, shapes)).jaxpr)


def test_a_product_has_two_operations_for_each_pair_of_numbers() -> None:
    assert operations(jnp.matmul, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    assert operations(jnp.matmul, (11, 3, 5), (11, 5, 7)) == 2 * 3 * 5 * 7  # of a batch, one
    assert operations(jnp.dot, (5,), (5,)) == 2 * 5
    assert operations(jnp.add, (5,), (5,)) == 0
    assert operations(jnp.matmul, (0, 5), (5, 7)) == 0


def test_the_largest_is_found_in_loops_branches_and_gradients() -> None:
    def loss(a, b):
        x, _ = jax.lax.scan(lambda x, _: (x @ b, None), a, None, 4)
        return jax.lax.cond(x.sum() > 0, lambda: (x @ x.T).sum(), lambda: x.sum())

    assert operations(loss, (9, 4), (4, 4)) == 2 * 9 * 4 * 9
    assert operations(jax.jit(jax.grad(loss)), (9, 4), (4, 4)) == 2 * 9 * 4 * 9


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is one order elsewhere")
def test_the_order_is_chosen_by_size_and_traced_once() -> None:
    traces = []

    def square(x):
        traces.append(x.shape)
        return x @ x

    program = Program(square)
    size = round((LARGE / 2) ** (1 / 3))
    small, large = jnp.eye(8), jnp.eye(size + 1)
    assert program.chosen(small) is program.one_after_the_other
    assert program.chosen(large) is program.side_by_side
    for x in (small, large):
        np.testing.assert_array_equal(program(x), x)
        np.testing.assert_array_equal(program.chosen_once()(x), x)
    assert traces == [small.shape, large.shape]


def test_both_orders_give_the_same_numbers() -> None:
    algorithm, collector = training.arrays(tiny_ppo()), ScanCollector(CartPole(), 2)
    ends = []
    for compiled in (training.compiled_chunk.side_by_side, training.compiled_chunk.one_after_the_other):
        state = training.init(algorithm, collector, jax.random.key(0), 1_000)
        state, _ = compiled(algorithm, collector, state, np.int32(3), max_iterations=3)
        ends.append(jax.tree.leaves(state._replace(key=jax.random.key_data(state.key))))
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
