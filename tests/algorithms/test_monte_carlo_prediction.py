"""Monte Carlo prediction: means of returns counted by hand, importance sampling, episodes that cross trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import dynamic_programming as dp
from parnassus import training
from parnassus.algorithms.monte_carlo_prediction import MonteCarloPrediction
from parnassus.collect import ScanCollector
from parnassus.envs.textbook import random_walk
from parnassus.types import BadInput
from tests.tabular_streams import ACTIONS, SPEC, STATES, episodes, learned, stream

GAMMA = 0.9


def visits(steps: list, first: bool, policy: np.ndarray, behavior: np.ndarray) -> list[tuple[int, float, float]]:
    """(state, return, ratio) of every step that counts."""
    found = []
    for episode in episodes(steps):
        total, ratio, rows = 0.0, 1.0, []
        for step in reversed(episode):
            total = step.r + GAMMA * total
            ratio *= policy[step.s, step.a] / behavior[step.s, step.a]
            rows.append((step.s, total, ratio))
        seen: set[int] = set()
        for s, total, ratio in reversed(rows):
            if not first or s not in seen:
                found.append((s, total, ratio))
            seen.add(s)
    return found


def tables(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(ACTIONS), STATES), rng.dirichlet(3 * np.ones(ACTIONS), STATES)


@pytest.mark.parametrize("kind", ["first", "every"])
@pytest.mark.parametrize("weighting", ["ordinary", "weighted"])
@pytest.mark.parametrize("num_steps", [1, 7, 120])
def test_values_are_means_of_returns(kind: str, weighting: str, num_steps: int) -> None:
    """However the steps are cut into trajectories."""
    steps, (policy, behavior) = stream(1), tables(1)
    algorithm = MonteCarloPrediction(
        kind,  # type: ignore[arg-type]
        weighting,  # type: ignore[arg-type]
        num_steps=num_steps,
        longest=40,
        discount=GAMMA,
        policy=jnp.asarray(policy, jnp.float32),
        behavior_policy=jnp.asarray(behavior, jnp.float32),
    )
    counted = visits(steps, kind == "first", policy, behavior)
    expected = np.zeros(STATES)
    for s in range(STATES):
        total, ratio = np.array([(g, rho) for state, g, rho in counted if state == s]).T
        expected[s] = (ratio * total).sum() / (ratio.sum() if weighting == "weighted" else len(ratio))
    np.testing.assert_allclose(learned(algorithm, steps, num_steps).v, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("num_steps", [1, 120])
def test_a_learning_rate_takes_steps_in_order(num_steps: int) -> None:
    """Constant-alpha Monte Carlo, equation 6.1."""
    steps, v = stream(2), np.zeros(STATES)
    uniform = np.full((STATES, ACTIONS), 1 / ACTIONS)
    for s, total, _ in visits(steps, False, uniform, uniform):
        v[s] += 0.1 * (total - v[s])
    algorithm = MonteCarloPrediction("every", learning_rate=0.1, num_steps=num_steps, longest=40, discount=GAMMA)
    np.testing.assert_allclose(learned(algorithm, steps, num_steps).v, v, rtol=1e-3, atol=1e-4)


def test_of_a_long_episode_the_last_steps_are_remembered() -> None:
    steps = [step._replace(terminated=False, truncated=False) for step in stream(3, 30)]
    steps[-1] = steps[-1]._replace(terminated=True)
    algorithm = MonteCarloPrediction("every", num_steps=1, longest=9, discount=GAMMA)
    short = MonteCarloPrediction("every", num_steps=1, longest=100, discount=GAMMA)
    np.testing.assert_allclose(learned(algorithm, steps).v, learned(short, steps[-10:]).v, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighting", ["ordinary", "weighted"])
def test_it_goes_to_the_values_of_another_policy(weighting: str) -> None:
    """Of a policy that leans to the right, from episodes of one that does not."""
    policy = jnp.tile(jnp.array([0.35, 0.65]), (5, 1))
    mdp = random_walk()
    even = jnp.ones((5, 2)) / 2
    algorithm = MonteCarloPrediction("every", weighting, discount=1.0, policy=policy, behavior_policy=even)  # type: ignore[arg-type]
    collector = ScanCollector(mdp, 16)
    state = training.init(algorithm, collector, jax.random.key(0), 400_000)
    for chunk in training.train(algorithm, collector, state, 400_000):  # noqa: B007
        pass
    exact = dp.evaluate(mdp, policy, 1.0, method="linear").v
    np.testing.assert_allclose(chunk.state.learner.v, exact, atol=0.05)


def test_a_policy_for_other_tables_is_refused() -> None:
    with pytest.raises(BadInput, match="behavior_policy must be a table of 5 states and 3 actions"):
        MonteCarloPrediction(behavior_policy=jnp.ones((2, 3)) / 3).init(jax.random.key(0), SPEC)
