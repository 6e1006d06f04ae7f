"""n-step tree backup: off-policy control without importance sampling (Precup et al. 2000; Sutton & Barto 2018, 7.5).

    initialise Q(s, a) for all s, a; pi is epsilon-greedy for Q
    repeat
        choose a in s epsilon-greedily from Q; take it, observe r, s'                    (the collector)
        for the step n - 1 before this one; where the episode is over, for each that is left, the oldest first:
            G <- r + gamma (1 - terminated) sum_a pi(a | s') Q(s', a)
            for each step k between it and this one, the newest first:
                G <- r_k + gamma [sum_{a != a_k} pi(a | s_k) Q(s_k, a) + pi(a_k | s_k) G]
            Q(s_t, a_t) <- Q(s_t, a_t) + alpha [G - Q(s_t, a_t)]

n = 1 is Expected SARSA; a greedy pi (`target_epsilon` = 0) learns the best policy's values whatever is done meanwhile.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import Behavior, Window, act, epsilon_greedy_policy, expected_value, numbered, sizes
from parnassus.types import Count, Fraction, Key, Metrics, Spec, Transition, pytree


class Learner(NamedTuple):
    q: Float[Array, "S A"]
    window: Window
    first_state: Int[Array, ""]
    progress: Progress


@pytree
class TreeBackup:
    """n-step tree backup with an epsilon-greedy behaviour; Discrete observations and actions."""

    learning_rate: Fraction | Linear = 0.1  # alpha, the step towards the target
    n: Count = 3  # rewards per target
    num_steps: Count = 1  # T: steps in each environment per iteration
    discount: Fraction = 0.99  # gamma, of future rewards
    epsilon: Fraction | Linear = 0.1  # the probability of a random action
    target_epsilon: Fraction = 0.0  # that of the policy whose values are learned
    initial_value: float = 0.0  # Q(s, a) before anything is known; optimistic values explore

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete."""
        num_states, num_actions, first_state = sizes(spec, "Tree backup")
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
        """One update for each step, n - 1 steps late."""
        alpha = at(self.learning_rate, learner.progress)

        def observe(carry: tuple[Array, Window], step: Transition) -> tuple[tuple[Array, Window], Array]:
            q, window = carry
            window = window.push(step)
            due = window.due(step.done)

            def update(q: Float[Array, "S A"], k: Int[Array, ""]) -> Float[Array, "S A"]:
                here = window.state[k], window.action[k]
                error = self.backed_up(q, window, step)[k] - q[here]
                return q.at[here].add(jnp.where(due[k], alpha * error, 0.0))

            error = self.backed_up(q, window, step)[0] - q[window.state[0], window.action[0]]
            return (window.update(q, due, update), window.drop(step.done)), (jnp.where(due[0], error, 0.0) ** 2).mean()

        steps = numbered(trajectory, learner.first_state)
        (q, window), squared_errors = jax.lax.scan(observe, (learner.q, learner.window), steps)
        progress = learner.progress.advance(trajectory.reward)
        metrics = {"loss/value": squared_errors.mean(), "value/mean": q.mean()}
        return Learner(q, window, learner.first_state, progress), metrics

    def backed_up(self, q: Float[Array, "S A"], window: Window, newest: Transition) -> Float[Array, "n N"]:
        """G of each step in the window."""
        expected = expected_value(q[newest.next_observation], self.target_epsilon)
        # What is worth being there: after the newest step the expectation alone, before it mixed with what was done.
        after = jnp.where(newest.terminated, 0.0, expected)

        def back(after: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            state, action, reward = step
            total = reward + self.discount * after
            probability = epsilon_greedy_policy(q[state], self.target_epsilon)
            taken = jax.nn.one_hot(action, q.shape[-1])
            left, done = (probability * q[state] * (1 - taken)).sum(-1), (probability * taken).sum(-1)
            return left + done * total, total

        return jax.lax.scan(back, after, (window.state, window.action, window.reward), reverse=True)[1]
