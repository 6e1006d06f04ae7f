"""Small finite MDPs where everything is computed exactly, in float64: what estimators are compared with.

Tables: transition p(s' | s, a) [S, A, S'], reward r(s, a, s') [S, A, S'], start [S], policy pi(a | s) [S, A]. A row of
transitions that sums to less than one ends the episode with what is missing.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from parnassus.networks import Network
from parnassus.types import Spec, Transition

Table = np.ndarray


class ExactMDP(NamedTuple):
    """A model, and a discount."""

    transition: Table  # [S, A, S']
    reward: Table  # [S, A, S'], of every transition that goes on
    start: Table  # [S]
    discount: float
    final_reward: Table  # [S, A], of a transition that ends the episode

    @property
    def ending(self) -> Table:
        """The probability that (s, a) ends the episode. [S, A]"""
        return 1.0 - self.transition.sum(-1)


class Path(NamedTuple):
    """One episode from its start to its end, H steps."""

    probability: float
    states: tuple[int, ...]
    actions: tuple[int, ...]
    rewards: tuple[float, ...]


def random_mdp(seed: int, num_states: int = 4, num_actions: int = 3, discount: float = 0.9) -> ExactMDP:
    """Every state leads everywhere; episodes do not end."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(num_states), (num_states, num_actions))
    reward = rng.normal(size=transition.shape)
    start = rng.dirichlet(np.ones(num_states))
    return ExactMDP(transition, reward, start, discount, np.zeros((num_states, num_actions)))


def layered_mdp(seed: int, horizon: int = 3, width: int = 2, num_actions: int = 2, discount: float = 0.9) -> ExactMDP:
    """`horizon` layers of `width` states, each leading at random into the next, so that every episode has as many
    steps, and there are few enough episodes to list. Rewards are mostly positive: a baseline matters."""
    rng = np.random.default_rng(seed)
    size = horizon * width
    transition = np.zeros((size, num_actions, size))
    for layer in range(horizon - 1):
        here, after = slice(layer * width, (layer + 1) * width), slice((layer + 1) * width, (layer + 2) * width)
        transition[here, :, after] = rng.dirichlet(np.ones(width), (width, num_actions))
    start = np.zeros(size)
    start[:width] = rng.dirichlet(np.ones(width))
    reward = rng.normal(2.0, 1.0, transition.shape)
    return ExactMDP(transition, reward, start, discount, rng.normal(2.0, 1.0, (size, num_actions)))


def softmax(logits: Table) -> Table:
    """pi(a | s) from preferences theta [S, A]."""
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def softmax_scores(policy: Table) -> Table:
    """grad_theta log pi(a | s) of a tabular softmax policy. [S, A, S, A]: of each (s, a) with respect to theta."""
    num_states, num_actions = policy.shape
    scores = np.zeros((*policy.shape, *policy.shape))
    for s in range(num_states):
        for a in range(num_actions):
            scores[s, a, s] = np.eye(num_actions)[a] - policy[s]
    return scores


def expected_reward(mdp: ExactMDP) -> Table:
    """r(s, a) = E[r | s, a]. [S, A]"""
    return (mdp.transition * mdp.reward).sum(-1) + mdp.ending * mdp.final_reward


def state_values(mdp: ExactMDP, policy: Table) -> Table:
    """V, the solution of V = r_pi + gamma P_pi V. [S]"""
    reward = (policy * expected_reward(mdp)).sum(-1)
    transition = np.einsum("sa,sat->st", policy, mdp.transition)
    return np.linalg.solve(np.eye(len(reward)) - mdp.discount * transition, reward)


def action_values(mdp: ExactMDP, policy: Table) -> Table:
    """Q(s, a) = r(s, a) + gamma sum_s' p(s' | s, a) V(s'). [S, A]"""
    return expected_reward(mdp) + mdp.discount * mdp.transition @ state_values(mdp, policy)


def advantages(mdp: ExactMDP, policy: Table) -> Table:
    """A = Q - V. [S, A]"""
    return action_values(mdp, policy) - state_values(mdp, policy)[:, None]


def objective(mdp: ExactMDP, policy: Table) -> float:
    """J = E[sum_t gamma^t r_{t+1}]."""
    return float(mdp.start @ state_values(mdp, policy))


def occupancy(mdp: ExactMDP, policy: Table) -> Table:
    """d(s) = sum_t gamma^t P(s_t = s), which sums to 1 / (1 - gamma) where episodes do not end. [S]"""
    transition = np.einsum("sa,sat->st", policy, mdp.transition)
    return np.linalg.solve(np.eye(len(mdp.start)) - mdp.discount * transition.T, mdp.start)


def policy_gradient(mdp: ExactMDP, policy: Table, scores: Table) -> Table:
    """The policy gradient theorem: sum_s d(s) sum_a pi(a | s) grad log pi(a | s) Q(s, a), for scores [S, A, ...]."""
    weight = occupancy(mdp, policy)[:, None] * policy * action_values(mdp, policy)
    return np.tensordot(weight, scores, axes=2)


def finite_differences(function: Any, at: Table, step: float = 1e-5) -> Table:
    """Central differences of a real function of an array, element by element."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        change = np.zeros_like(at)
        change[index] = step
        gradient[index] = (function(at + change) - function(at - change)) / (2 * step)
    return gradient


def paths(mdp: ExactMDP, policy: Table) -> Iterator[Path]:
    """Every episode of positive probability, of an MDP whose episodes all end."""

    def extend(path: Path, state: int) -> Iterator[Path]:
        for action in np.flatnonzero(policy[state]):
            taken = path.probability * policy[state, action]
            states, actions = (*path.states, state), (*path.actions, int(action))
            if mdp.ending[state, action] > 1e-12:
                reward = mdp.final_reward[state, action]
                yield Path(taken * mdp.ending[state, action], states, actions, (*path.rewards, reward))
            for after in np.flatnonzero(mdp.transition[state, action]):
                longer = Path(
                    taken * mdp.transition[state, action, after],
                    states,
                    actions,
                    (*path.rewards, mdp.reward[state, action, after]),
                )
                yield from extend(longer, int(after))

    for state in np.flatnonzero(mdp.start):
        yield from extend(Path(float(mdp.start[state]), (), (), ()), int(state))


# For what the library computes.


def spec(mdp: ExactMDP) -> Spec:
    """One environment that shows the state's number, which networks read as a one-hot vector."""
    num_states, num_actions = mdp.transition.shape[:2]
    return Spec(spaces.Discrete(num_states), spaces.Discrete(num_actions), 1)


def tabular(network: Network, table: np.ndarray) -> Network:
    """A network without hidden layers, of one-hot observations, that looks its outputs up in a table [S, ...]."""
    weights = jnp.asarray(table, jnp.float32).reshape(len(table), -1)
    params = {**network.params, "Dense_0": {"kernel": weights, "bias": jnp.zeros(weights.shape[1])}}
    return Network(params, network.module)


def episodes(mdp: ExactMDP, policy: np.ndarray) -> tuple[jax.Array, Transition]:
    """The probabilities [P] of all episodes, and the episodes as trajectories with leaves [P, T, 1]."""
    listed = list(paths(mdp, policy))
    states, actions = (np.array([getattr(path, name) for path in listed])[..., None] for name in ("states", "actions"))
    reward = jnp.array([path.rewards for path in listed])[..., None]
    following = np.concatenate([states[:, 1:], np.zeros_like(states[:, :1])], axis=1)
    terminated = np.zeros(states.shape, bool)
    terminated[:, -1] = True
    time = np.broadcast_to(np.arange(states.shape[1])[None, :, None], states.shape)
    extras = {"time": jnp.asarray(time), "log_prob": jnp.log(policy[states, actions])}
    steps = Transition(
        jnp.asarray(states),
        jnp.asarray(actions),
        reward,
        jnp.asarray(following),
        jnp.asarray(terminated),
        jnp.zeros(states.shape, bool),
        extras,
    )
    return jnp.array([path.probability for path in listed]), steps


def expectation(gradient: Callable, probability: jax.Array, steps: Transition) -> Any:
    """The expectation of a gradient over all episodes, as a sum over the steps of an episode in place of their mean."""
    each = jax.jit(jax.vmap(gradient))(steps)
    num_steps = steps.reward.shape[1]
    return jax.tree.map(lambda x: num_steps * np.tensordot(probability, np.asarray(x, np.float64), axes=1), each)
