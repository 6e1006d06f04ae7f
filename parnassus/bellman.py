"""Bellman's backup of all states at once, swept until nothing changes, and the same as a linear system.

    Backup            q(s, a) = r(s, a) + gamma sum_k p_k (1 - terminated_k) v(s'_k)
    sweeps            v <- max_a q(s, a), synchronously or in place; with one action in each state, a policy's own v
    soft_sweeps       v <- tau log sum_a exp(q(s, a) / tau)
    solve             v = r + gamma P v
    solve_transposed  rho = start + gamma P^T rho

A sweep costs one pass over the S x A x K outcomes. Loops end when no value changes by more than `enough`, or by more
than rounding does. What `parnassus.dynamic_programming` is made of.
"""

import dataclasses
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.envs.mdp import FiniteMDP
from parnassus.types import BadInput

Order = Literal["jacobi", "gauss-seidel", "random", "prioritized"]

# Above so many states, linear systems are solved without their matrix.
DENSE = 2_048


class Backup(NamedTuple):
    """The tables of an MDP as sweeps read them: outcomes first, so that each step of a sweep runs over all states."""

    reward: Float[Array, "A S"]  # expected
    weight: Float[Array, "K A S"]  # gamma (1 - terminated) p
    successor: Int[Array, "K A S"]

    def __call__(self, v: Float[Array, "S"]) -> Float[Array, "A S"]:
        """q. Outcome by outcome: XLA's gathers on the CPU are five times as fast as in one over all of them."""

        def add(q: Array, outcome: tuple[Array, Array]) -> tuple[Array, None]:
            weight, successor = outcome
            return q + weight * v.at[successor].get(mode="promise_in_bounds"), None

        return jax.lax.scan(add, self.reward, (self.weight, self.successor))[0]

    def of(self, policy: Float[Array, "S A"]) -> "Backup":
        """With one action in each state, the policy's."""
        num_outcomes, num_actions, num_states = self.weight.shape
        shape = (num_outcomes * num_actions, 1, num_states)
        weight = (self.weight * policy.T[None]).reshape(shape)
        return Backup((self.reward * policy.T).sum(0, keepdims=True), weight, self.successor.reshape(shape))


@jax.jit
def tables_of(mdp: FiniteMDP, discount: Float[Array, ""]) -> Backup:
    """The tables of an MDP, discounted."""
    reward = (mdp.probability * mdp.reward).sum(-1)
    weight = discount * mdp.probability * ~mdp.terminated
    return Backup(reward.T, weight.transpose(2, 1, 0), mdp.next_state.transpose(2, 1, 0))


def sweeps(
    tables: Backup, order: Order, discount: float, tolerance: float, max_iterations: int
) -> tuple[Float[Array, "S"], int, bool]:
    """v, how many sweeps it took, and whether it stood still: v <- max_a q. Raises BadInput for an unknown order."""
    if order not in get_args(Order):
        raise BadInput(f"unknown order of sweeps {order!r}; choose one of {', '.join(get_args(Order))}")
    return _numbers(_sweep_until_still(tables, order, *_stop(discount, tolerance, max_iterations)))


def improving_sweeps(
    tables: Backup, num_sweeps: int, discount: float, tolerance: float, max_iterations: int
) -> tuple[Float[Array, "S"], int, bool]:
    """The same, where `num_sweeps` of the greedy policy's own sweeps follow each improvement, and count as one."""
    return _numbers(_improve_and_sweep(tables, num_sweeps, *_stop(discount, tolerance, max_iterations)))


def soft_sweeps(
    tables: Backup, temperature: Float[Array, ""], discount: float, tolerance: float, max_iterations: int
) -> tuple[Float[Array, "S"], int, bool]:
    """The same: v <- tau log sum_a exp(q / tau)."""
    return _numbers(_soft_sweep_until_still(tables, temperature, *_stop(discount, tolerance, max_iterations)))


def _stop(discount: float, tolerance: float, max_iterations: int) -> tuple[Array, Array]:
    """The change up to which the error is at most `tolerance`: |v_k - v| <= gamma / (1 - gamma) |v_k - v_k-1|."""
    if not tolerance >= 0:
        raise BadInput(f"tolerance must be at least 0, not {tolerance}")
    if max_iterations < 1:
        raise BadInput(f"max_iterations must be at least 1, not {max_iterations}")
    enough = tolerance if discount in (0, 1) else tolerance * (1 - discount) / discount
    return jnp.float32(enough), jnp.int32(max_iterations)


def _until_still(sweep: Any, v: Array, enough: Array, max_iterations: Array) -> tuple[Array, Array, Array]:
    """(v, sweeps, whether it stood still at the end)."""

    def goes_on(carry: tuple[Array, Array, Array]) -> Array:
        v, change, count = carry
        return (change > jnp.maximum(enough, 4e-7 * jnp.abs(v).max())) & (count < max_iterations)

    def once(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        v, _, count = carry
        new = sweep(v, count)
        return new, jnp.abs(new - v).max(), count + 1

    v, change, count = jax.lax.while_loop(goes_on, once, (v, jnp.float32(jnp.inf), jnp.int32(0)))
    return v, count, change <= jnp.maximum(enough, 4e-7 * jnp.abs(v).max())


def _numbers(found: tuple[Array, Array, Array]) -> tuple[Array, int, bool]:
    v, count, done = found
    return v, int(count), bool(done)


@partial(jax.jit, static_argnums=1)
def _sweep_until_still(
    tables: Backup, order: Order, enough: Array, max_iterations: Array
) -> tuple[Array, Array, Array]:
    num_states = tables.reward.shape[-1]
    numbers = jnp.arange(num_states)

    def sweep(v: Array, count: Array) -> Array:
        if order == "jacobi":
            return tables(v).max(0)
        if order == "random":
            states = jax.random.permutation(jax.random.fold_in(jax.random.key(0), count), num_states)
        elif order == "prioritized":
            states = jnp.argsort(-jnp.abs(tables(v).max(0) - v))
        else:
            states = numbers

        def back_up(i: Array, v: Array) -> Array:
            s = states[i]
            q = tables.reward[:, s] + (tables.weight[:, :, s] * v[tables.successor[:, :, s]]).sum(0)
            return v.at[s].set(q.max())

        return jax.lax.fori_loop(0, num_states, back_up, v)

    return _until_still(sweep, jnp.zeros(num_states), enough, max_iterations)


@partial(jax.jit, static_argnums=1)
def _improve_and_sweep(
    tables: Backup, num_sweeps: int, enough: Array, max_iterations: Array
) -> tuple[Array, Array, Array]:
    def improve_and_sweep(v: Array, _: Array) -> Array:
        q = tables(v)  # the first sweep: greedy for v, and one backup
        chosen = q.argmax(0)[None]
        take = lambda x: jnp.take_along_axis(x, jnp.broadcast_to(chosen, (*x.shape[:-2], 1, x.shape[-1])), -2)  # noqa: E731
        of_policy = jax.tree.map(take, tables)
        return jax.lax.fori_loop(0, num_sweeps - 1, lambda _, v: of_policy(v)[0], q.max(0))

    return _until_still(improve_and_sweep, jnp.zeros(tables.reward.shape[-1]), enough, max_iterations)


@jax.jit
def _soft_sweep_until_still(
    tables: Backup, tau: Array, enough: Array, max_iterations: Array
) -> tuple[Array, Array, Array]:
    sweep = lambda v, _: tau * jax.nn.logsumexp(tables(v) / tau, axis=0)  # noqa: E731
    return _until_still(sweep, jnp.zeros(tables.reward.shape[-1]), enough, max_iterations)


def tables_in_double(mdp: FiniteMDP, discount: float) -> Backup:
    """Backup tables in float64, for `jax.enable_x64`."""
    wide = double(mdp)
    # So that distributions sum to 1 in float64 too: a little that is missing would end long episodes early.
    probability = wide.probability / wide.probability.sum(-1, keepdims=True)
    return tables_of(dataclasses.replace(wide, probability=probability), jnp.float64(discount))


def double(tree: Any) -> Any:
    """Real numbers in float64, for `jax.enable_x64`."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if x.dtype == jnp.float32 else x, tree)


def solve_exactly(mdp: FiniteMDP, policy: Float[Array, "S A"], discount: float) -> Float[Array, "S"]:
    """`solve` in float64, where its matrix is written out: sums over many outcomes lose digits."""
    if mdp.num_states > DENSE:
        return solve(tables_of(mdp, jnp.float32(discount)).of(policy))
    with jax.enable_x64(True):
        return solve(tables_in_double(mdp, discount).of(double(policy))).astype(jnp.float32)


@jax.jit
def solve(of_policy: Backup) -> Float[Array, "S"]:
    """v = r + gamma P v."""
    (reward,) = of_policy.reward
    if len(reward) <= DENSE:
        return jnp.linalg.solve(_system(of_policy), reward)
    leave = lambda v: v - (of_policy(v)[0] - reward)  # noqa: E731  # (I - gamma P) v
    return jax.scipy.sparse.linalg.bicgstab(leave, reward, tol=1e-7, maxiter=10_000)[0]


def solve_transposed(of_policy: Backup, start: Array) -> Float[Array, "S"]:
    """rho = start + gamma P^T rho: discounted visits of each state."""
    if len(start) <= DENSE:
        return jnp.linalg.solve(_system(of_policy).T, start)
    (reward,) = of_policy.reward
    back = jax.linear_transpose(lambda v: v - (of_policy(v)[0] - reward), start)
    return jax.scipy.sparse.linalg.bicgstab(lambda rho: back(rho)[0], start, tol=1e-7, maxiter=10_000)[0]


def _system(of_policy: Backup) -> Float[Array, "S S"]:
    """I - gamma P."""
    num_states, dtype = of_policy.reward.shape[-1], of_policy.reward.dtype
    here = jnp.broadcast_to(jnp.arange(num_states), of_policy.weight.shape)
    return jnp.eye(num_states, dtype=dtype).at[here, of_policy.successor].add(-of_policy.weight)
