"""Random finite MDPs, and their tables in float64 for what is computed on the side."""

import numpy as np

from parnassus.envs.mdp import FiniteMDP


def random_mdp(seed: int, num_states: int, num_actions: int, num_outcomes: int) -> FiniteMDP:
    """Outcomes anywhere, some of which end the episode."""
    rng = np.random.default_rng(seed)
    shape = (num_states, num_actions, num_outcomes)
    probability = rng.dirichlet(np.ones(num_outcomes), shape[:2])
    over = rng.random(shape) < 0.1
    start = rng.dirichlet(np.ones(num_states))
    return FiniteMDP.create(rng.integers(0, num_states, shape), probability, rng.normal(size=shape), over, start)


def tables(mdp: FiniteMDP) -> tuple[np.ndarray, np.ndarray]:
    """P [S, A, S'] of the transitions that go on, and r [S, A], in float64."""
    probability = np.asarray(mdp.probability, np.float64)
    transition = np.zeros((mdp.num_states, mdp.num_actions, mdp.num_states))
    state, action, _ = np.indices(probability.shape)
    np.add.at(transition, (state, action, mdp.next_state), probability * ~np.asarray(mdp.terminated))
    return transition, (probability * mdp.reward).sum(-1)
