"""Tabular Q-learning: off-policy temporal-difference control (Watkins 1989).

    initialise Q(s, a) for all s, a
    repeat
        choose a in s epsilon-greedily from Q; take it, observe r, s'                    (the collector)
        Q(s, a) <- Q(s, a) + alpha [r + gamma (1 - terminated) max_a' Q(s', a') - Q(s, a)]

With N environments, N such steps are taken side by side from the same Q.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import Behavior, act, numbered, sizes
from parnassus.types import Count, Fraction, Key, Metrics, Spec, Transition, pytree


class Learner(NamedTuple):
    q: Float[Array, "S A"]
    first_state: Int[Array, ""]  # the number that the observation space calls its first state
    progress: Progress


@pytree
class QLearning:
    """Q-learning with an epsilon-greedy behaviour; Discrete observations and actions."""

    learning_rate: Fraction | Linear = 0.1  # alpha, the step towards the target
    num_steps: Count = 1  # T: steps in each environment per iteration
    discount: Fraction = 0.99  # gamma, of future rewards
    epsilon: Fraction | Linear = Linear(1.0, 0.05, 0.5)  # the probability of a random action
    initial_value: float = 0.0  # Q(s, a) before anything is known; optimistic values explore

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete."""
        num_states, num_actions, first_state = sizes(spec, "Q-learning")
        q = jnp.full((num_states, num_actions), self.initial_value, jnp.float32)
        return Learner(q, first_state, Progress.start())

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
        """One update per time step, in order."""
        alpha = at(self.learning_rate, learner.progress)

        def update(q: Float[Array, "S A"], step: Transition) -> tuple[Float[Array, "S A"], Float[Array, ""]]:
            following = q[step.next_observation].max(-1)
            target = step.reward + self.discount * (1.0 - step.terminated) * following
            error = target - q[step.observation, step.action]
            return q.at[step.observation, step.action].add(alpha * error), (error**2).mean()

        q, squared_errors = jax.lax.scan(update, learner.q, numbered(trajectory, learner.first_state))
        progress = learner.progress.advance(trajectory.reward)
        metrics = {"loss/value": squared_errors.mean(), "value/mean": q.mean()}
        if isinstance(self.epsilon, Linear):
            metrics["policy/epsilon"] = jnp.asarray(at(self.epsilon, progress))
        return Learner(q, learner.first_state, progress), metrics
