"""SARSA: on-policy temporal-difference control, n-step (Rummery & Niranjan 1994; Sutton & Barto 2018, 6.4 and 7.2).

    initialise Q(s, a) for all s, a
    repeat
        choose a in s epsilon-greedily from Q                                           (the collector)
        for the step (s_t, a_t) that was n steps ago in this episode:
            G <- r_{t+1} + ... + gamma^(n-1) r_{t+n} + gamma^n Q(s, a)
            Q(s_t, a_t) <- Q(s_t, a_t) + alpha [G - Q(s_t, a_t)]
        take a, observe r, s'
        where the episode is over, for each step that is left, the oldest first: the same with G <- r_{t+1} + ... + r

The target needs the action that is taken next: an update is made once that is known, before the action after it is
chosen, as in the book. Where a time limit cuts an episode there is none: sum_a pi(a | s') Q(s', a) stands for it. With
N environments, N such updates are made side by side.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import Behavior, Window, act, expected_value, numbered, sizes
from parnassus.types import Count, Fraction, Key, Metrics, Spec, Transition, pytree


class Learner(NamedTuple):
    q: Float[Array, "S A"]
    window: Window
    first_state: Int[Array, ""]
    progress: Progress


@pytree
class SARSA:
    """SARSA with an epsilon-greedy policy; Discrete observations and actions."""

    learning_rate: Fraction | Linear = 0.1  # alpha, the step towards the target
    n: Count = 1  # rewards per target
    num_steps: Count = 1  # T: steps in each environment per iteration
    discount: Fraction = 0.99  # gamma, of future rewards
    epsilon: Fraction | Linear = 0.1  # the probability of a random action
    initial_value: float = 0.0  # Q(s, a) before anything is known; optimistic values explore

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete."""
        num_states, num_actions, first_state = sizes(spec, "SARSA")
        q = jnp.full((num_states, num_actions), self.initial_value, jnp.float32)
        return Learner(q, Window.create(self.n, spec.num_envs), first_state, Progress.start())

    def behavior(self, learner: Learner) -> Behavior:
        """The table, and how far epsilon has come."""
        return Behavior(learner.q, learner.first_state, learner.progress)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Int[Array, "N"], key: Key, explore: bool) -> tuple:
        """Epsilon-greedy; greedy where not exploring."""
        return act(behavior, observation, key, explore, self.epsilon), memory, {}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """One update for each step, n steps late."""
        alpha, epsilon = at(self.learning_rate, learner.progress), at(self.epsilon, learner.progress)

        def observe(carry: tuple[Array, Window], step: Transition) -> tuple[tuple[Array, Window], Array]:
            q, window = carry
            no = jnp.zeros_like(step.done)
            # The steps before this one, now that it is known what was done after them ...
            returns, due = window.returns(self.discount, q[step.observation, step.action]), window.due(no)
            error = jnp.where(due[0], returns[0] - q[window.state[0], window.action[0]], 0.0)
            q, window = window.update(q, due, towards(returns, window, due, alpha)), window.drop(no)
            # ... and where nothing is done after this one, it and all that are left.
            window = window.push(step)
            after = jnp.where(step.terminated, 0.0, expected_value(q[step.next_observation], epsilon))
            returns, due = window.returns(self.discount, after), window.due(step.done) & step.done[None]
            q = window.update(q, due, towards(returns, window, due, alpha))
            return (q, window._replace(count=jnp.where(step.done, 0, window.count))), (error**2).mean()

        steps = numbered(trajectory, learner.first_state)
        (q, window), squared_errors = jax.lax.scan(observe, (learner.q, learner.window), steps)
        progress = learner.progress.advance(trajectory.reward)
        metrics = {"loss/value": squared_errors.mean(), "value/mean": q.mean()}
        return Learner(q, window, learner.first_state, progress), metrics


def towards(returns: Array, window: Window, due: Array, alpha: float | Array):  # type: ignore[no-untyped-def]
    """Q(s_k, a_k) <- Q(s_k, a_k) + alpha [G_k - Q(s_k, a_k)], for the steps k that are due."""

    def update(q: Float[Array, "S A"], k: Int[Array, ""]) -> Float[Array, "S A"]:
        here = window.state[k], window.action[k]
        return q.at[here].add(jnp.where(due[k], alpha * (returns[k] - q[here]), 0.0))

    return update
