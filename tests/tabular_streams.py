"""Experience for tabular algorithms, and what the book's boxes, step by step in Python, make of it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from parnassus.types import Spec, Transition

STATES, ACTIONS, FIRST = 5, 3, 2  # observations are numbered from FIRST on
SPEC = Spec(spaces.Discrete(STATES, start=FIRST), spaces.Discrete(ACTIONS), 1)


class Now(NamedTuple):
    """A step, states counted from 0."""

    s: int
    a: int
    r: float
    after: int
    terminated: bool
    truncated: bool

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated


def stream(seed: int, steps: int = 120) -> list[Now]:
    """Random actions in a random world whose episodes end, some by being cut."""
    rng = np.random.default_rng(seed)
    move = rng.dirichlet(np.ones(STATES), (STATES, ACTIONS))
    pay = rng.normal(size=(STATES, ACTIONS))
    found, s = [], int(rng.integers(STATES))
    for _ in range(steps):
        a = int(rng.integers(ACTIONS))
        after = int(rng.choice(STATES, p=move[s, a]))
        terminated, truncated = rng.random() < 0.15, rng.random() < 0.08
        found.append(Now(s, a, float(pay[s, a] + rng.normal()), after, terminated, truncated and not terminated))
        s = int(rng.integers(STATES)) if found[-1].done else after
    return found


def episodes(steps: list[Now]) -> Iterator[list[Now]]:
    """The episodes that are over."""
    one: list[Now] = []
    for step in steps:
        one.append(step)
        if step.done:
            yield one
            one = []


def trajectory(steps: list[Now], extras: dict[str, Any] | None = None) -> Transition:
    """Leaves [T, 1], as an environment numbers its states."""
    columns = [np.array(column)[:, None] for column in zip(*steps, strict=True)]
    s, a, r, after, terminated, truncated = columns
    made = (s + FIRST).astype(np.int32), a.astype(np.int32), r.astype(np.float32), (after + FIRST).astype(np.int32)
    return Transition(*map(jnp.asarray, (*made, terminated, truncated)), extras or {})


def learned(algorithm: Any, steps: list[Now], num_steps: int = 1, extras: dict[str, np.ndarray] | None = None) -> Any:
    """The learner after all of them, `num_steps` at a time."""
    learner, learn = algorithm.init(jax.random.key(0), SPEC), jax.jit(algorithm.learn)
    for i in range(0, len(steps), num_steps):
        more = {name: jnp.asarray(x[i : i + num_steps, None], jnp.float32) for name, x in (extras or {}).items()}
        learner, metrics = learn(learner, trajectory(steps[i : i + num_steps], more), jax.random.key(i))
        assert all(np.isfinite(value) for value in metrics.values())
    return learner


def epsilon_greedy(q: np.ndarray, epsilon: float) -> np.ndarray:
    """pi(a | s) of one row of values."""
    best = q >= q.max()
    return (1 - epsilon) * best / best.sum() + epsilon / len(q)
