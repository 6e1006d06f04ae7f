"""n-step tree backup: the book's box, step by step; one step is Expected SARSA."""

import numpy as np
import pytest

from parnassus.algorithms.expected_sarsa import ExpectedSARSA
from parnassus.algorithms.tree_backup import TreeBackup
from tests.tabular_streams import ACTIONS, STATES, episodes, epsilon_greedy, learned, stream

ALPHA, GAMMA = 0.3, 0.9


def box(steps: list, n: int, target: float) -> np.ndarray:
    """Sutton & Barto, section 7.5, where a cut episode ends with the expected value of where it stood."""
    q = np.zeros((STATES, ACTIONS))
    rest = steps[sum(map(len, episodes(steps))) :]
    for episode in [*episodes(steps), rest]:
        over = bool(episode) and episode[-1].done
        for t in range(len(episode) + n - 1 if over else len(episode)):
            tau = t - n + 1
            if tau < 0:
                continue
            last = min(t, len(episode) - 1)
            row = q[episode[last].after]
            total = episode[last].r + GAMMA * (not episode[last].terminated) * (epsilon_greedy(row, target) @ row)
            for k in range(last, tau, -1):
                row, taken = q[episode[k].s], episode[k].a
                policy = epsilon_greedy(row, target)
                others = policy @ row - policy[taken] * row[taken]
                total = episode[k - 1].r + GAMMA * (others + policy[taken] * total)
            here = episode[tau].s, episode[tau].a
            q[here] += ALPHA * (total - q[here])
    return q


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize(("num_steps", "target"), [(1, 0.3), (40, 0.3), (1, 0.0)])
def test_it_is_the_books_box(n: int, num_steps: int, target: float) -> None:
    steps = stream(n)
    algorithm = TreeBackup(ALPHA, n, num_steps, GAMMA, target_epsilon=target)
    np.testing.assert_allclose(learned(algorithm, steps, num_steps).q, box(steps, n, target), rtol=1e-4, atol=1e-5)


def test_one_step_is_expected_sarsa() -> None:
    steps = stream(13)
    found = learned(TreeBackup(ALPHA, 1, discount=GAMMA, target_epsilon=0.2), steps).q
    expected = learned(ExpectedSARSA(ALPHA, discount=GAMMA, target_epsilon=0.2), steps).q
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
