"""What the tabular algorithms share: acting on a table, steps that wait for their update, and means of returns."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from gymnasium import spaces
from jaxtyping import Array, Bool, Float, Int

from parnassus.exploration import epsilon_greedy
from parnassus.schedules import Linear, Progress, at
from parnassus.types import BadInput, Key, Spec, Transition

Scalar = float | Float[Array, ""]
# What an update changes: (table, step k of the window) -> table
Update = Callable[[Any, Array], Any]


class Behavior(NamedTuple):
    """What acting on a table needs."""

    q: Float[Array, "S A"]
    first_state: Int[Array, ""]  # the number that the observation space calls its first state
    progress: Progress


def sizes(spec: Spec, name: str) -> tuple[int, int, Int[Array, ""]]:
    """How many states and actions there are, and the first state's number. Raises BadInput if they are not Discrete."""
    for kind, space in (("observation", spec.observation_space), ("action", spec.action_space)):
        if not isinstance(space, spaces.Discrete):
            raise BadInput(f"{name} keeps a table and needs a Discrete {kind} space, not {space}")
    states, actions = cast(spaces.Discrete, spec.observation_space), cast(spaces.Discrete, spec.action_space)
    return int(states.n), int(actions.n), jnp.asarray(int(states.start), jnp.int32)


def numbered(trajectory: Transition, first_state: Int[Array, ""]) -> Transition:
    """The trajectory with states counted from 0."""
    return trajectory._replace(
        observation=trajectory.observation - first_state, next_observation=trajectory.next_observation - first_state
    )


def act(
    behavior: Behavior, observation: Int[Array, "N"], key: Key, explore: bool, epsilon: Scalar | Linear
) -> Int[Array, "N"]:
    """Epsilon-greedy; greedy where not exploring."""
    epsilon = at(epsilon, behavior.progress) if explore else 0.0
    return epsilon_greedy(key, behavior.q[observation - behavior.first_state], epsilon)


def epsilon_greedy_policy(q: Float[Array, "*batch A"], epsilon: Scalar) -> Float[Array, "*batch A"]:
    """pi(a | s) of `epsilon_greedy`, which shares between equally good actions."""
    best = (q >= q.max(-1, keepdims=True)).astype(q.dtype)
    return (1 - epsilon) * best / best.sum(-1, keepdims=True) + epsilon / q.shape[-1]


def expected_value(q: Float[Array, "*batch A"], epsilon: Scalar) -> Float[Array, "*batch"]:
    """sum_a pi(a | s) q(s, a) of the epsilon-greedy policy."""
    return (epsilon_greedy_policy(q, epsilon) * q).sum(-1)


class PolicyBehavior(NamedTuple):
    """What acting by a given policy needs."""

    policy: Float[Array, "S A"]
    first_state: Int[Array, ""]


def draw(behavior: PolicyBehavior, observation: Int[Array, "N"], key: Key) -> Int[Array, "N"]:
    """Actions of the policy."""
    probability = behavior.policy[observation - behavior.first_state]
    return jax.random.categorical(key, jnp.log(probability)).astype(jnp.int32)


def policy_table(
    policy: Float[Array, "S A"] | None, num_states: int, num_actions: int, name: str
) -> Float[Array, "S A"]:
    """The policy given, or the uniform one for None. Raises BadInput if its shape is not that of the environment."""
    if policy is None:
        return jnp.full((num_states, num_actions), 1.0 / num_actions)
    if policy.shape != (num_states, num_actions):
        raise BadInput(f"{name} must be a table of {num_states} states and {num_actions} actions, not {policy.shape}")
    return jnp.asarray(policy)


class Window(NamedTuple):
    """The last n steps of each environment's running episode, the newest last, that wait for their update."""

    state: Int[Array, "n N"]
    action: Int[Array, "n N"]
    reward: Float[Array, "n N"]
    count: Int[Array, "N"]  # type: ignore[assignment]  # (of tuple) how many there are: those before are none

    @classmethod
    def create(cls, n: int, num_envs: int) -> "Window":
        """Nothing yet."""
        numbers = jnp.zeros((n, num_envs), jnp.int32)
        return cls(numbers, numbers, jnp.zeros((n, num_envs)), jnp.zeros(num_envs, jnp.int32))

    def push(self, step: Transition) -> "Window":
        """With one more step, leaves [N]."""
        n = len(self.state)
        add = lambda old, new: jnp.concatenate([old[1:], new[None].astype(old.dtype)])  # noqa: E731
        return Window(
            add(self.state, step.observation),
            add(self.action, step.action),
            add(self.reward, step.reward),
            jnp.minimum(self.count + 1, n),
        )

    def drop(self, done: Bool[Array, "N"]) -> "Window":
        """Without the oldest step where the window is full, and without any where the episode is over."""
        full = self.count == len(self.state)
        return self._replace(count=jnp.where(done, 0, self.count - full))

    def returns(self, discount: Scalar, after: Float[Array, "N"]) -> Float[Array, "n N"]:
        """For each step k: r_k + gamma r_{k+1} + ... + gamma^(n - k) `after`, the value of what follows the newest."""

        def back(following: Array, reward: Array) -> tuple[Array, Array]:
            total = reward + discount * following
            return total, total

        return jax.lax.scan(back, after, self.reward, reverse=True)[1]

    def due(self, done: Bool[Array, "N"]) -> Bool[Array, "n N"]:
        """Which steps are to be updated now: the oldest of a full window, and all where the episode is over."""
        k = jnp.arange(len(self.state))[:, None]
        return (k >= len(self.state) - self.count[None]) & (done[None] | (k == 0))

    def update(self, table: Any, due: Bool[Array, "n N"], update: Update) -> Any:
        """The table after the updates of those steps that are due, one after the other, the oldest first."""
        end = jnp.where(due[1:].any(), len(due), due[0].any().astype(jnp.int32))
        return jax.lax.fori_loop(0, end, lambda k, table: update(table, k), table)


class Past(NamedTuple):
    """The steps of episodes that were not over at the end of the last trajectory, the newest last."""

    step: Transition  # leaves [L, N]
    count: Int[Array, "N"]  # type: ignore[assignment]  # (of tuple) how many there are: those before are none

    @classmethod
    def create(cls, length: int, num_envs: int, extras: tuple[str, ...] = ()) -> "Past":
        """Nothing yet; `extras` names the real numbers that `act` adds to each step."""
        numbers, no = jnp.zeros((length, num_envs), jnp.int32), jnp.zeros((length, num_envs), bool)
        zeros = jnp.zeros((length, num_envs))
        step = Transition(numbers, numbers, zeros, numbers, no, no, dict.fromkeys(extras, zeros))
        return cls(step, jnp.zeros(num_envs, jnp.int32))

    def with_(self, trajectory: Transition) -> tuple[Transition, Bool[Array, "T N"], "Past"]:
        """All steps up to now; which of them there are and belong to an episode that is over by now; the new past.

        Of an episode that is longer than the past, the first steps are forgotten.
        """
        length, new = len(self.step.reward), len(trajectory.reward)
        join = lambda old, now: jnp.concatenate([old, now.astype(old.dtype)])  # noqa: E731
        steps = jax.tree.map(join, self.step, trajectory)
        time = jnp.arange(length + new)[:, None]
        exists = time >= length - self.count[None]
        last_end = jnp.where(steps.done & exists, time, -1).max(0)
        open_since = jnp.minimum(jnp.where(last_end < 0, self.count + new, length + new - 1 - last_end), length)
        past = Past(jax.tree.map(lambda x: x[new:], steps), open_since)
        return steps, exists & (time <= last_end[None]), past


def first_visits(
    visited: Int[Array, "T N"], done: Bool[Array, "T N"], exists: Bool[Array, "T N"], size: int
) -> Bool[Array, "T N"]:
    """Whether each step is the first of its episode with this number (0 to size - 1: a state, or state and action)."""
    num_envs = visited.shape[1]
    env = jnp.arange(num_envs)

    def look(carry: tuple[Array, Array], step: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        last, episode = carry
        number, over, is_there = step
        first = (last[env, number] != episode) & is_there
        last = last.at[env, number].set(jnp.where(is_there, episode, last[env, number]))
        return (last, episode + over), first

    start = jnp.full((num_envs, size), -1), jnp.zeros(num_envs, jnp.int32)
    return jax.lax.scan(look, start, (visited, done, exists))[1]


def averaged(
    table: Float[Array, "*shape"],
    weight: Float[Array, "*shape"],
    where: tuple[Int[Array, "T N"], ...],
    target: Float[Array, "T N"],
    of: Float[Array, "T N"],
    to: Float[Array, "T N"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Weighted means and their weights, with more targets: each counts `of` times, and adds `to` to the weight.

    table = sum of * target / sum to: the mean where both are 1, importance sampling where one or both are ratios.
    """
    more = jnp.zeros_like(weight).at[where].add(to)
    total = jnp.zeros_like(table).at[where].add(of * target)
    weight = weight + more
    return table + jnp.where(weight > 0, (total - more * table) / jnp.where(weight > 0, weight, 1.0), 0.0), weight


def moved(
    table: Float[Array, "*shape"],
    where: tuple[Int[Array, "T N"], ...],
    target: Float[Array, "T N"],
    rate: Float[Array, "T N"],
) -> Float[Array, "*shape"]:
    """A table after steps towards targets, one after the other: table <- table + rate (target - table)."""

    def move(table: Array, step: tuple[tuple[Array, ...], Array, Array]) -> tuple[Array, None]:
        here, target, rate = step
        return table.at[here].add(rate * (target - table[here])), None

    return jax.lax.scan(move, table, (where, target, rate))[0]
