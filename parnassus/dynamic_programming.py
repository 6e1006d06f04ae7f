"""Dynamic programming on finite MDPs: what is exactly true, where the model is known (Sutton & Barto 2018, chapter 4).

    action_values                 q(s, a) = sum_k p_k (r_k + gamma (1 - terminated_k) v(s'_k))      Bellman's backup
    evaluate                      v(s) <- sum_a pi(a | s) q(s, a)
    improve                       pi(s) <- argmax_a q(s, a)
    policy_iteration              evaluate to the end, improve, repeat
    generalized_policy_iteration  evaluate by k sweeps, improve, repeat
    value_iteration               v(s) <- max_a q(s, a)
    soft_value_iteration          v(s) <- tau log sum_a exp(q(s, a) / tau)
    monotonic_policy_iteration    pi <- argmax_pi' L_pi(pi') - C max_s KL(pi(. | s), pi'(. | s))

Everything is in float32, and a sweep costs one pass over the S x A x K outcomes. Sweeps are synchronous ("jacobi": all
states from the old values) or in place, state by state: in the order of their numbers ("gauss-seidel"), in an order
drawn anew for each sweep ("random"), or by the size of their Bellman error, greatest first ("prioritized").
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from parnassus import bellman
from parnassus.bellman import Backup, Order, tables_of
from parnassus.envs.mdp import FiniteMDP
from parnassus.types import BadInput


class Solution(NamedTuple):
    """Values of a policy, or of the best one."""

    v: Float[Array, "S"]
    q: Float[Array, "S A"]
    policy: Float[Array, "S A"]  # pi(a | s): the one that was evaluated, or that is greedy (soft: softmax) for q
    iterations: int  # sweeps; of policy iteration, improvements
    bound: float  # |v - the true v| is at most this everywhere, but for rounding; infinite where gamma = 1
    converged: bool  # whether the tolerance was reached

    @property
    def actions(self) -> Int[Array, "S"]:
        """The policy's most probable action in each state."""
        return jnp.argmax(self.policy, axis=-1)


def action_values(mdp: FiniteMDP, v: Float[Array, "S"], discount: float) -> Float[Array, "S A"]:
    """q(s, a), one backup from v."""
    return tables_of(mdp, jnp.float32(discount))(v).T


def evaluate(
    mdp: FiniteMDP,
    policy: Any,
    discount: float,
    *,
    method: Order | Literal["linear"] = "jacobi",
    tolerance: float = 1e-5,
    max_iterations: int = 100_000,
) -> Solution:
    """v and q of a policy: probabilities [S, A], actions [S], or "random".

    `method` is how: by sweeps in an order, from v = 0, until the error is at most `tolerance` (gamma = 1: until no
    value changes by more), or "linear": by solving v = r + gamma P v. Raises BadInput for a policy that is none, a
    discount outside [0, 1] and, where it is 1, a policy under which episodes need not end.
    """
    probability = _policy(mdp, policy)
    _check(mdp, discount, probability)
    tables = tables_of(mdp, jnp.float32(discount))
    of_policy = tables.of(probability)
    if method == "linear":
        v, iterations, done = bellman.solve_exactly(mdp, probability, discount), 1, True
    else:
        v, iterations, done = bellman.sweeps(of_policy, method, discount, tolerance, max_iterations)
    return _solution(tables, v, probability, of_policy(v)[0], discount, iterations, done)


def improve(mdp: FiniteMDP, v: Float[Array, "S"], discount: float) -> Float[Array, "S A"]:
    """The policy that is greedy for v: one action in each state, the first of the best."""
    return _greedy(action_values(mdp, v, discount))


def policy_iteration(
    mdp: FiniteMDP,
    discount: float,
    *,
    evaluation: Order | Literal["linear"] = "linear",
    tolerance: float = 1e-5,
    max_iterations: int = 1_000,
) -> Solution:
    """The best policy, by evaluating and improving in turns until none of its actions changes (Howard 1960).

    From the random policy, by which every episode ends where one can. An action changes only for one that is better by
    more than rounding.
    """
    _check(mdp, discount, None)
    policy = _policy(mdp, "random")
    tables, improvements = tables_of(mdp, jnp.float32(discount)), 0
    while True:
        found = evaluate(mdp, policy, discount, method=evaluation, tolerance=tolerance)
        best, kept = found.q.max(-1), (found.q * policy).sum(-1)
        better = best - kept > 1e-6 * (1.0 + jnp.abs(best))
        done = not better.any()
        if done or improvements == max_iterations:
            return _solution(tables, found.v, policy, best, discount, improvements, done)
        policy = jnp.where(better[:, None], _greedy(found.q), policy)
        improvements += 1


def generalized_policy_iteration(
    mdp: FiniteMDP, discount: float, sweeps: int, *, tolerance: float = 1e-5, max_iterations: int = 100_000
) -> Solution:
    """The best policy, by `sweeps` synchronous sweeps of evaluation between two improvements (Puterman & Shin 1978).

    One sweep is value iteration; many are policy iteration. Raises BadInput as `value_iteration`, or for less than one.
    """
    if sweeps < 1:
        raise BadInput(f"sweeps must be at least 1, not {sweeps}")
    _check(mdp, discount, None)
    tables = tables_of(mdp, jnp.float32(discount))
    v, iterations, done = bellman.improving_sweeps(tables, sweeps, discount, tolerance, max_iterations)
    q = tables(v)
    return _solution(tables, v, _greedy(q.T), q.max(0), discount, iterations, done)


def value_iteration(
    mdp: FiniteMDP,
    discount: float,
    *,
    order: Order = "jacobi",
    tolerance: float = 1e-5,
    max_iterations: int = 100_000,
) -> Solution:
    """The best policy and its values, by Bellman's optimality backup (Bellman 1957).

    Raises BadInput for a discount outside [0, 1] and, where it is 1, for a state from which no policy ends an episode.
    """
    _check(mdp, discount, None)
    tables = tables_of(mdp, jnp.float32(discount))
    v, iterations, done = bellman.sweeps(tables, order, discount, tolerance, max_iterations)
    q = tables(v)
    return _solution(tables, v, _greedy(q.T), q.max(0), discount, iterations, done)


def soft_value_iteration(
    mdp: FiniteMDP, discount: float, temperature: float, *, tolerance: float = 1e-5, max_iterations: int = 100_000
) -> Solution:
    """The best policy where entropy is rewarded too: r + tau H(pi(. | s)); pi = softmax(q / tau) (Ziebart 2010).

    q leaves out the entropy of the action that it is of, v holds it. Raises BadInput as `value_iteration`, or for a
    temperature that is not positive.
    """
    if not temperature > 0:
        raise BadInput(f"temperature must be positive, not {temperature}; without entropy: value_iteration")
    _check(mdp, discount, None)
    tables = tables_of(mdp, jnp.float32(discount))
    tau = jnp.float32(temperature)
    v, iterations, done = bellman.soft_sweeps(tables, tau, discount, tolerance, max_iterations)
    q = tables(v)
    backed_up = tau * jax.nn.logsumexp(q / tau, axis=0)
    return _solution(tables, v, jax.nn.softmax(q.T / tau), backed_up, discount, iterations, done)


class Improvements(NamedTuple):
    """What `monotonic_policy_iteration` did, one number for each of I steps."""

    policy: Float[Array, "S A"]  # the last
    performance: Float[np.ndarray, "I"]  # eta: the expected discounted return from the start, before each step
    kl: Float[np.ndarray, "I"]  # max_s KL(old, new) of each step
    penalty: Float[np.ndarray, "I"]  # C


def monotonic_policy_iteration(
    mdp: FiniteMDP, discount: float, iterations: int, policy: Any = "random"
) -> Improvements:
    """Policy iteration with a guarantee at every step (Schulman et al. 2015, Algorithm 1).

    pi <- argmax_pi' L(pi') - C max_s KL(pi(. | s), pi'(. | s)), C = 4 eps gamma / (1 - gamma)^2, eps = max |A(s, a)|,
    L(pi') = eta + sum_s rho(s) sum_a pi'(a | s) A(s, a): eta never falls, and rises slowly, since C is large.

    Solved exactly: under a limit on the greatest KL each state takes all of it, and its best policy is
    pi'(a) ~ pi(a) / (nu - A(a)); so one number is searched for in each state, and one in all. Raises BadInput for a
    discount of 1 (C would be infinite).
    """
    _check(mdp, discount, None)
    if discount == 1:
        raise BadInput(
            "monotonic_policy_iteration needs a discount below 1: its penalty has 1 - discount below the line"
        )
    probability = _policy(mdp, policy)
    rows = []
    with jax.enable_x64(True):  # steps are small
        tables = bellman.tables_in_double(mdp, discount)
        start, probability = bellman.double((mdp.start, probability))
        start, probability = start / start.sum(), probability / probability.sum(-1, keepdims=True)
        for _ in range(iterations):
            probability, *row = _monotonic_step(tables, start, probability, jnp.float64(discount))
            rows.append([float(x) for x in row])
        probability = probability.astype(jnp.float32)
    performance, kl, penalty = np.array(rows, np.float64).reshape(-1, 3).T
    return Improvements(probability, performance, kl, penalty)


@jax.jit
def _monotonic_step(tables: Backup, start: Array, policy: Array, discount: Array) -> tuple[Array, ...]:
    of_policy = tables.of(policy)
    v = bellman.solve(of_policy)
    advantage = tables(v).T - v[:, None]
    advantage -= (policy * advantage).sum(-1, keepdims=True)  # zero on average, also after rounding
    visits = bellman.solve_transposed(of_policy, start)
    penalty = 4 * jnp.abs(advantage).max() * discount / (1 - discount) ** 2

    def gain(log_limit: Array) -> tuple[Array, Array]:
        limit = jnp.exp(log_limit)
        new = jax.vmap(_best_within, (0, 0, None))(policy, advantage, limit)
        return (visits * (new * advantage).sum(-1)).sum() - penalty * limit, new

    # The gain is concave in the limit, so it has one peak in its logarithm too: golden-section search.
    ratio = 0.5 * 5**0.5 - 0.5

    def narrow(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        is_left = gain(left)[0] > gain(right)[0]
        return jnp.where(is_left, low, left), jnp.where(is_left, right, high)

    ends_of_search = (jnp.log(1e-14 * jnp.ones_like(penalty)), jnp.log(10.0 * jnp.ones_like(penalty)))
    low, high = jax.lax.fori_loop(0, 50, narrow, ends_of_search)
    best, new = gain((low + high) / 2)
    new = jnp.where(best > 0, new, policy)
    divergence = (policy * (jnp.log(policy) - jnp.log(new))).sum(-1, where=policy > 0)
    return new, start @ v, divergence.max(), penalty


def _best_within(policy: Float[Array, "A"], advantage: Float[Array, "A"], limit: Float[Array, ""]) -> Float[Array, "A"]:
    """argmax_p p . advantage, subject to KL(policy, p) <= limit: policy / (nu - advantage), normalised."""
    top = jnp.where(policy > 0, advantage, -jnp.inf).max()
    scale = jnp.maximum(top - jnp.where(policy > 0, advantage, jnp.inf).min(), 1e-30)

    def candidate(log_gap: Array) -> Array:
        unnormalized = policy / (scale * jnp.exp(log_gap) + (top - advantage))
        unnormalized = jnp.where(policy > 0, unnormalized, 0.0)
        new = unnormalized / unnormalized.sum()
        return jnp.where(policy > 0, jnp.maximum(new, 1e-30), 0.0)  # what was possible stays so: KL is finite

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        p = candidate(middle)
        divergence = (policy * (jnp.log(policy) - jnp.log(p))).sum(where=policy > 0)
        return jnp.where(divergence > limit, middle, low), jnp.where(divergence > limit, high, middle)

    _, high = jax.lax.fori_loop(0, 60, halve, (-40.0 * jnp.ones_like(limit), 40.0 * jnp.ones_like(limit)))
    return candidate(high)


def _solution(
    tables: Backup, v: Array, policy: Array, backed_up: Array, discount: float, iterations: int, done: bool
) -> Solution:
    """With the bound |v - v*| <= |v - T v| / (1 - gamma), T v being `backed_up`."""
    error = float(jnp.abs(backed_up - v).max())
    return Solution(v, tables(v).T, policy, iterations, error / (1 - discount) if discount < 1 else np.inf, done)


def _greedy(q: Float[Array, "S A"]) -> Float[Array, "S A"]:
    return jax.nn.one_hot(q.argmax(-1), q.shape[-1])


def _policy(mdp: FiniteMDP, policy: Any) -> Float[Array, "S A"]:
    """As probabilities. Raises BadInput if it is no policy of this MDP."""
    shape = (mdp.num_states, mdp.num_actions)
    if isinstance(policy, str):
        if policy != "random":
            raise BadInput(f"a policy is a table of probabilities, an array of actions or 'random', not {policy!r}")
        return jnp.full(shape, 1.0 / mdp.num_actions)
    table = np.asarray(policy)
    if table.shape == shape[:1] and table.dtype.kind in "iu":
        if table.min() < 0 or table.max() >= shape[1]:
            raise BadInput(f"the policy's actions must be 0 to {shape[1] - 1}, not {table.min()} to {table.max()}")
        return jax.nn.one_hot(jnp.asarray(table), shape[1])
    if table.shape != shape:
        raise BadInput(f"a policy of this MDP has the shape {shape} or {shape[:1]} (actions), not {table.shape}")
    table = table.astype(np.float64)
    wrong = ~((np.abs(table.sum(-1) - 1) <= 1e-5) & (table >= 0).all(-1))  # `not ...`: a NaN must not pass
    if wrong.any():
        raise BadInput(f"the policy's probabilities in state {int(np.flatnonzero(wrong)[0])} are no distribution")
    return jnp.asarray(table, jnp.float32)


def _check(mdp: FiniteMDP, discount: float, policy: Float[Array, "S A"] | None) -> None:
    """Raises BadInput for a discount outside [0, 1] or, where it is 1, episodes that need not end."""
    if not 0 <= discount <= 1:
        raise BadInput(f"discount must be in [0, 1], not {discount}")
    if discount == 1:
        stuck = np.flatnonzero(~ends(mdp, policy))
        if len(stuck):
            whose = "no policy ends" if policy is None else "this policy does not end"
            raise BadInput(
                f"with discount 1 every episode must end, but from {len(stuck)} of {mdp.num_states} states, such as "
                f"state {stuck[0]}, {whose} it; give a discount below 1"
            )


def ends(mdp: FiniteMDP, policy: Float[Array, "S A"] | None = None) -> Bool[np.ndarray, "S"]:
    """From which states an episode can end: under a policy, or (by default) under some policy.

    Where it can from every state, it does with probability 1, sooner or later (under some policy). A state that only
    leads to itself, without reward, counts as an end.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import breadth_first_order

    size = mdp.num_states
    possible = np.asarray(mdp.probability) > 0
    if policy is not None:
        possible = possible & (np.asarray(policy) > 0)[..., None]
    state, action, outcome = np.nonzero(possible)
    there = np.asarray(mdp.next_state)[state, action, outcome]
    over = np.asarray(mdp.terminated)[state, action, outcome]
    idle = (there == state) & (np.asarray(mdp.reward)[state, action, outcome] == 0)
    stays = np.flatnonzero(np.bincount(state[~idle], minlength=size) == 0)
    there = np.where(over, size, there)  # one more state: the end
    source, target = np.append(there, np.full(len(stays), size)), np.append(state, stays)  # backwards in time
    graph = csr_matrix((np.ones(len(source), np.int8), (source, target)), shape=(size + 1, size + 1))
    found = np.zeros(size + 1, bool)
    found[breadth_first_order(graph, size, return_predecessors=False)] = True
    return found[:size]
