"""Finite Markov decision processes: tables that are an environment here, and a model for dynamic programming."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Bool, Float, Int

from parnassus.types import BadInput, Key, Step, pytree


class MDPState(NamedTuple):
    """Where the process is."""

    index: Int[Array, ""]  # type: ignore[assignment]  # (of tuple) the state, 0 ... S-1
    time: Int[Array, ""]  # steps since reset


@pytree
class FiniteMDP:
    """p(s', r, end | s, a) as a table of at most K outcomes for each of S states and A actions.

    Outcomes are what Gymnasium's toy-text environments list in `P[s][a]`, so nothing is lost: two outcomes may lead to
    the same state with different rewards, and an episode ends by an outcome, not by a state. Where fewer than K
    outcomes are possible, the last is repeated with probability 0. Of a terminated outcome, no further reward follows:
    a backup is sum_k p_k (r_k + gamma (1 - terminated_k) v(s'_k)).

    Build one with `create`, `from_dense`, `from_function` or `from_gymnasium`, which check the tables.
    """

    next_state: Int[Array, "S A K"]
    probability: Float[Array, "S A K"]
    reward: Float[Array, "S A K"]
    terminated: Bool[Array, "S A K"]
    start: Float[Array, " S"]  # distribution of the first state
    max_steps: int | None = None  # time limit: truncates, None for never

    @classmethod
    def create(
        cls, next_state: Any, probability: Any, reward: Any, terminated: Any, start: Any, max_steps: int | None = None
    ) -> "FiniteMDP":
        """From tables [S, A, K] and a start distribution [S].

        Raises BadInput if the shapes differ, a state does not exist, a distribution does not sum to one or a number
        is not finite.
        """
        tables = {
            "next_state": np.asarray(next_state),
            "probability": np.asarray(probability, np.float64),
            "reward": np.asarray(reward, np.float64),
            "terminated": np.asarray(terminated, bool),
            "start": np.asarray(start, np.float64),
        }
        _check_tables(**tables, max_steps=max_steps)
        dtypes = {"next_state": jnp.int32, "terminated": bool}
        return cls(**{k: jnp.asarray(v, dtypes.get(k, jnp.float32)) for k, v in tables.items()}, max_steps=max_steps)

    @classmethod
    def from_dense(
        cls, transition: Any, reward: Any, start: Any, terminal: Any = None, max_steps: int | None = None
    ) -> "FiniteMDP":
        """From textbook tables: transition and reward [S, A, S'], start [S], and a mask [S] of terminal states.

        Entering a terminal state ends the episode; its own row may be zero, or lead to itself without reward. Raises
        BadInput as `create` does, and where the mask cannot be meant: a terminal state that leads on, pays, or is a
        start, or that cannot be reached from any start.
        """
        transition, reward = np.asarray(transition, np.float64), np.asarray(reward, np.float64)
        if transition.ndim != 3 or transition.shape[0] != transition.shape[2] or reward.shape != transition.shape:
            raise BadInput(
                f"transition and reward must be tables [S, A, S], not of shapes {transition.shape} and {reward.shape}"
            )
        terminal = np.zeros(len(transition), bool) if terminal is None else np.asarray(terminal, bool)
        if terminal.shape != (len(transition),):
            raise BadInput(f"terminal must be a mask of the {len(transition)} states, not of shape {terminal.shape}")
        transition = _check_terminal(transition, reward, np.asarray(start, np.float64), terminal)
        return cls._from_outcomes(
            [
                [[(row[s], s, reward[i, j, s], terminal[s]) for s in np.flatnonzero(row)] for j, row in enumerate(rows)]
                for i, rows in enumerate(transition)
            ],
            start,
            max_steps,
        )

    @classmethod
    def from_gymnasium(cls, env: str | gymnasium.Env, **kwargs: Any) -> "FiniteMDP":
        """From a Gymnasium environment (or its id and options) that tells its `P` and `initial_state_distrib`.

        The time limit is the environment's own. Raises BadInput if there is no such id, option or table, and for
        Taxi's fickle passenger, who remembers what the table does not say.
        """
        if isinstance(env, str):
            from parnassus.envs.gymnasium import make_one

            made = make_one(env, **kwargs)
            try:
                return cls.from_gymnasium(made)
            finally:
                made.close()
        name = env.spec.id if env.spec else type(env.unwrapped).__name__
        inner = env.unwrapped
        if not hasattr(inner, "P") or not hasattr(inner, "initial_state_distrib"):
            raise BadInput(f"{name} is not a finite MDP: it has no transition table P and initial_state_distrib")
        if getattr(inner, "fickle_passenger", False):
            raise BadInput(f"{name} with fickle_passenger=True is not a finite MDP: its table P leaves that out")
        table = [[inner.P[s][a] for a in range(len(inner.P[s]))] for s in range(len(inner.P))]
        limit = env.spec.max_episode_steps if env.spec else None
        return cls._from_outcomes(table, inner.initial_state_distrib, limit)

    @classmethod
    def from_function(
        cls,
        num_states: int,
        num_actions: int,
        outcomes: Callable[[int, int], Sequence[tuple[float, int, float, bool]]],
        start: Any,
        max_steps: int | None = None,
    ) -> "FiniteMDP":
        """From a function (state, action) -> [(probability, next state, reward, terminated), ...], and start [S].

        Raises BadInput as `create` does, and if a state and action have no outcome.
        """
        table = [[list(outcomes(s, a)) for a in range(num_actions)] for s in range(num_states)]
        return cls._from_outcomes(table, start, max_steps)

    @classmethod
    def _from_outcomes(cls, table: list[list[list[tuple]]], start: Any, max_steps: int | None) -> "FiniteMDP":
        """From table[s][a], a list of (probability, next state, reward, terminated)."""
        for s, actions in enumerate(table):
            for a, outcomes in enumerate(actions):
                if not outcomes:
                    raise BadInput(f"action {a} in state {s} has no outcome")
        if len({len(actions) for actions in table}) != 1:
            raise BadInput("every state must have the same, positive number of actions")
        width = max(len(outcomes) for actions in table for outcomes in actions)

        def padded(outcomes: list[tuple]) -> list[tuple]:
            return [*outcomes, *[(0.0, *outcomes[-1][1:])] * (width - len(outcomes))]

        rows = [[padded(outcomes) for outcomes in actions] for actions in table]
        probability, next_state, reward, terminated = np.moveaxis(np.array(rows, np.float64), 3, 0)
        return cls.create(next_state.astype(np.int64), probability, reward, terminated, start, max_steps)

    @property
    def num_states(self) -> int:
        """S."""
        return self.next_state.shape[0]

    @property
    def num_actions(self) -> int:
        """A."""
        return self.next_state.shape[1]

    @property
    def observation_space(self) -> gymnasium.Space:
        """The state's number."""
        return spaces.Discrete(self.num_states)

    @property
    def action_space(self) -> gymnasium.Space:
        """The action's number."""
        return spaces.Discrete(self.num_actions)

    def reset(self, key: Key) -> tuple[MDPState, Int[Array, ""]]:
        """A state of the start distribution."""
        index = _sample(self.start, key)
        return MDPState(index, jnp.zeros((), jnp.int32)), index

    def step(self, state: MDPState, action: Int[Array, ""], key: Key) -> Step:
        """One outcome of (state, action)."""
        here = (state.index, action)
        outcome = (*here, _sample(self.probability[here], key))
        after = MDPState(self.next_state[outcome], state.time + 1)
        never = jnp.zeros((), bool)
        return Step(
            state=after,
            observation=after.index,
            reward=self.reward[outcome],
            terminated=self.terminated[outcome],
            truncated=never if self.max_steps is None else after.time >= self.max_steps,
        )


def _sample(probability: Float[Array, " K"], key: Key) -> Int[Array, ""]:
    """An index by inversion: the first whose cumulative probability exceeds a uniform number."""
    if probability.shape[0] == 1:
        return jnp.zeros((), jnp.int32)
    cumulative = jnp.cumsum(probability)
    # Scaled by the total, which rounding moves away from 1: an outcome of probability 0 is never drawn.
    return (cumulative <= jax.random.uniform(key) * cumulative[-1]).sum(dtype=jnp.int32)


def _check_terminal(transition: np.ndarray, reward: np.ndarray, start: np.ndarray, terminal: np.ndarray) -> np.ndarray:
    """The transitions, with terminal states leading to themselves. Raises BadInput for a mask that cannot be meant."""
    transition = transition.copy()
    for s in np.flatnonzero(terminal):
        row = transition[s]
        if not row.any():
            row[:, s] = 1.0
        if np.delete(row, s, axis=1).any():
            raise BadInput(f"state {s} is terminal, but an action leads on from there")
        if (row * reward[s]).any():
            raise BadInput(f"state {s} is terminal, but an action is rewarded there: reward the way to it")
        if s < len(start) and start[s] > 0:
            raise BadInput(f"state {s} is terminal, but episodes may begin there")
    leads: np.ndarray = np.any(transition > 0, axis=1)
    reached = {int(i) for i in np.flatnonzero(start > 0)} if start.shape == terminal.shape else set(range(len(leads)))
    while more := {int(i) for i in np.flatnonzero(np.any(leads[list(reached)], axis=0))} - reached:
        reached |= more
    lost = sorted({int(i) for i in np.flatnonzero(terminal)} - reached)
    if lost:
        raise BadInput(f"state {lost[0]} is terminal, but cannot be reached from any start")
    return transition


def _check_tables(
    next_state: np.ndarray,
    probability: np.ndarray,
    reward: np.ndarray,
    terminated: np.ndarray,
    start: np.ndarray,
    max_steps: int | None,
) -> None:
    shape = next_state.shape
    if len(shape) != 3 or 0 in shape:
        raise BadInput(f"next_state must be a table [S, A, K], not of shape {shape}")
    for name, table in (("probability", probability), ("reward", reward), ("terminated", terminated)):
        if table.shape != shape:
            raise BadInput(f"{name} has shape {table.shape}, but next_state {shape}")
    if start.shape != shape[:1]:
        raise BadInput(f"start must be a distribution over the {shape[0]} states, not of shape {start.shape}")
    if next_state.dtype.kind not in "iu" or next_state.min() < 0 or next_state.max() >= shape[0]:
        raise BadInput(f"next_state must hold the numbers of states, 0 to {shape[0] - 1}")
    if not np.isfinite(reward).all():
        raise BadInput("reward has a number that is not finite")
    for name, table in (("probability", probability), ("start", start)):
        total = table.sum(-1)
        # `not (... <= ...)`, because a NaN must not pass.
        wrong = ~((np.abs(total - 1) <= 1e-5) & (table >= 0).all(-1))
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            place = f" of state {where[0]}, action {where[1]}" if where else ""
            raise BadInput(
                f"{name}{place} must be a distribution: numbers of at least 0 that sum to 1, "
                f"not to {total[where]:.6g} with a smallest of {table[where].min():.6g}"
            )
    if max_steps is not None and max_steps < 1:
        raise BadInput(f"max_steps must be at least 1 or None, not {max_steps}")
