"""n-step SARSA: the book's box, step by step; on the cliff it keeps away from the edge."""

import jax
import numpy as np
import pytest

from parnassus import envs, training
from parnassus.algorithms.sarsa import SARSA
from parnassus.collect import ScanCollector
from tests.tabular_streams import ACTIONS, STATES, episodes, epsilon_greedy, learned, stream

ALPHA, GAMMA, EPSILON = 0.3, 0.9, 0.2


def box(steps: list, n: int) -> np.ndarray:
    """Sutton & Barto, section 7.2; what waits for an action that is not known yet is left out."""
    q = np.zeros((STATES, ACTIONS))
    rest = steps[sum(map(len, episodes(steps))) :]
    for episode in [*episodes(steps), rest]:
        length = len(episode)

        def update(tau: int, last: int, following: float, episode: list = episode) -> None:
            total = sum(GAMMA ** (i - tau) * episode[i].r for i in range(tau, last))
            here = episode[tau].s, episode[tau].a
            q[here] += ALPHA * (total + GAMMA ** (last - tau) * following - q[here])

        for t in range(n, length):  # now a_t is known
            update(t - n, t, q[episode[t].s, episode[t].a])
        if episode and episode[-1].done:
            row = q[episode[-1].after]
            after = 0.0 if episode[-1].terminated else float(epsilon_greedy(row, EPSILON) @ row)
            for tau in range(max(0, length - n), length):
                update(tau, length, after)
    return q


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("num_steps", [1, 40])
def test_it_is_the_books_box(n: int, num_steps: int) -> None:
    steps = stream(n)
    algorithm = SARSA(ALPHA, n, num_steps, GAMMA, EPSILON)
    np.testing.assert_allclose(learned(algorithm, steps, num_steps).q, box(steps, n), rtol=1e-4, atol=1e-5)


def test_on_the_cliff_it_keeps_away_from_the_edge() -> None:
    """Example 6.6: the greedy path has more than the 13 steps of the shortest."""
    mdp = envs.make("jax:CliffWalking-v1")
    algorithm, collector = SARSA(0.5, discount=1.0, num_steps=1), ScanCollector(mdp, 1)
    state = training.init(algorithm, collector, jax.random.key(0), 20_000)
    for chunk in training.train(algorithm, collector, state, 20_000):  # noqa: B007
        pass
    best, s, path = np.asarray(chunk.state.learner.q).argmax(-1), 36, 0
    while s != 47 and path < 60:
        s, path = int(mdp.next_state[s, best[s], 0]), path + 1
    assert 13 < path < 30
