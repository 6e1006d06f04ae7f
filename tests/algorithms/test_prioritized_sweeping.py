"""Prioritised sweeping: the book's box with a queue, step by step; on the maze it needs fewer updates than Dyna-Q."""

import jax
import numpy as np
import pytest

from parnassus import training
from parnassus.algorithms.dyna_q import DynaQ
from parnassus.algorithms.prioritized_sweeping import PrioritizedSweeping
from parnassus.collect import ScanCollector
from parnassus.envs.textbook import dyna_maze
from tests.tabular_streams import ACTIONS, STATES, learned, stream

ALPHA, GAMMA, THETA = 0.5, 0.9, 1e-3


@pytest.mark.parametrize("num_steps", [1, 40])
def test_it_is_the_books_box(num_steps: int) -> None:
    """Section 8.4, with a dictionary for a queue."""
    steps, q, queue, model = stream(1), np.zeros((STATES, ACTIONS)), {}, {}

    def error(s: int, a: int) -> float:
        r, after, over = model[s, a]
        return r + GAMMA * (not over) * q[after].max() - q[s, a]

    for step in steps:
        model[step.s, step.a] = step.r, step.after, step.terminated
        size = abs(error(step.s, step.a))
        if size > THETA:
            queue[step.s, step.a] = max(size, queue.get((step.s, step.a), 0.0))
        for _ in range(5):
            if not queue:
                break
            s, a = max(queue, key=lambda pair: queue[pair])
            del queue[s, a]
            q[s, a] += ALPHA * error(s, a)
            for pair, (r, after, over) in model.items():
                size = abs(r + GAMMA * q[s].max() - q[pair])
                if after == s and not over and size > THETA:
                    queue[pair] = max(size, queue.get(pair, 0.0))
    algorithm = PrioritizedSweeping(ALPHA, 5, THETA, num_steps, GAMMA)
    found = learned(algorithm, steps, num_steps)
    np.testing.assert_allclose(found.q, q, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose([found.priority[pair] for pair in queue], list(queue.values()), rtol=1e-2, atol=1e-3)


@pytest.mark.reuses_keys
def test_it_needs_fewer_updates_than_dyna_q() -> None:
    """Episodes in the maze within 1,500 steps of five plans each, 16 seeds."""
    count = []
    for algorithm in (DynaQ(0.5, 5), PrioritizedSweeping(0.5, 5)):
        collector = ScanCollector(dyna_maze(), 1)
        state = training.init(algorithm, collector, jax.random.split(jax.random.key(0), 16), 1_500)
        (chunk,) = training.train(algorithm, collector, state, 1_500, chunk_iterations=1_500)
        count.append(float(np.mean(chunk.metrics["episode/count"])))
    assert count[1] > 1.1 * count[0]
