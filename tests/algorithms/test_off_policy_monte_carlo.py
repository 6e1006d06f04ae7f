"""Off-policy Monte Carlo control: the book's box, episode by episode; the best policy from another's episodes."""

import jax
import numpy as np
import pytest

from parnassus import dynamic_programming as dp
from parnassus import training
from parnassus.algorithms.off_policy_monte_carlo import OffPolicyMonteCarlo
from parnassus.collect import ScanCollector
from parnassus.envs.textbook import grid_world_4x4
from tests.tabular_streams import ACTIONS, STATES, episodes, learned, stream

GAMMA = 0.9


@pytest.mark.parametrize("num_steps", [1, 3])
def test_it_is_the_books_box(num_steps: int) -> None:
    """Section 5.7. Trajectories short enough to hold no two ends: in a longer one the last episode goes first."""
    steps = stream(4)
    odds = np.random.default_rng(0).uniform(0.2, 0.8, len(steps))
    if num_steps > 1:  # ends at least three steps apart
        since = 0
        for t, step in enumerate(steps):
            since += 1
            keep = step.done and since >= 3
            steps[t] = step._replace(terminated=keep and step.terminated, truncated=keep and step.truncated)
            since = 0 if keep else since
    q, weight, t = np.zeros((STATES, ACTIONS)), np.zeros((STATES, ACTIONS)), 0
    for episode in episodes(steps):
        total, ratio = 0.0, 1.0
        for k in range(len(episode) - 1, -1, -1):
            here = episode[k].s, episode[k].a
            total = episode[k].r + GAMMA * total
            weight[here] += ratio
            q[here] += ratio / weight[here] * (total - q[here])
            if episode[k].a != q[episode[k].s].argmax():
                break
            ratio /= odds[t + k]
        t += len(episode)
    algorithm = OffPolicyMonteCarlo(num_steps, 40, GAMMA)
    found = learned(algorithm, steps, num_steps, {"probability": odds})
    np.testing.assert_allclose(found.q, q, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.weight, weight, rtol=1e-3, atol=1e-4)


def test_it_finds_the_best_policy() -> None:
    mdp = grid_world_4x4()
    # Pessimistic at first: it learns from tails that the greedy policy takes, so that one must look good.
    algorithm, collector = OffPolicyMonteCarlo(32, 100, 0.9, 0.4, initial_value=-20.0), ScanCollector(mdp, 16)
    state = training.init(algorithm, collector, jax.random.key(0), 200_000)
    for chunk in training.train(algorithm, collector, state, 200_000):  # noqa: B007
        pass
    policy = np.asarray(chunk.state.learner.q).argmax(-1)
    np.testing.assert_allclose(dp.evaluate(mdp, policy, 0.9).v, dp.value_iteration(mdp, 0.9).v, atol=0.1)
