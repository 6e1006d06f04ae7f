"""Expected SARSA: the target averages over the next action (van Seijen et al. 2009; Sutton & Barto 2018, eq. 6.9).

    initialise Q(s, a) for all s, a
    repeat
        choose a in s epsilon-greedily from Q; take it, observe r, s'                    (the collector)
        Q(s, a) <- Q(s, a) + alpha [r + gamma (1 - terminated) sum_a' pi(a' | s') Q(s', a') - Q(s, a)]

pi is the epsilon-greedy policy (`target_epsilon`, by default the behaviour's epsilon: on-policy; 0 is Q-learning).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import Behavior, act, expected_value, numbered, sizes
from parnassus.types import Count, Fraction, Key, Metrics, Spec, Transition, pytree


class Learner(NamedTuple):
    q: Float[Array, "S A"]
    first_state: Int[Array, ""]
    progress: Progress


@pytree
class ExpectedSARSA:
    """Expected SARSA with an epsilon-greedy behaviour; Discrete observations and actions."""

    learning_rate: Fraction | Linear = 0.1  # alpha, the step towards the target
    num_steps: Count = 1  # T: steps in each environment per iteration
    discount: Fraction = 0.99  # gamma, of future rewards
    epsilon: Fraction | Linear = 0.1  # the probability of a random action
    target_epsilon: Fraction | None = None  # that of the policy whose values are learned; None: the same
    initial_value: float = 0.0  # Q(s, a) before anything is known; optimistic values explore

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete."""
        num_states, num_actions, first_state = sizes(spec, "Expected SARSA")
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
        epsilon = at(self.epsilon, learner.progress) if self.target_epsilon is None else self.target_epsilon

        def update(q: Float[Array, "S A"], step: Transition) -> tuple[Float[Array, "S A"], Float[Array, ""]]:
            following = expected_value(q[step.next_observation], epsilon)
            target = step.reward + self.discount * (1.0 - step.terminated) * following
            error = target - q[step.observation, step.action]
            return q.at[step.observation, step.action].add(alpha * error), (error**2).mean()

        q, squared_errors = jax.lax.scan(update, learner.q, numbered(trajectory, learner.first_state))
        progress = learner.progress.advance(trajectory.reward)
        return Learner(q, learner.first_state, progress), {
            "loss/value": squared_errors.mean(),
            "value/mean": q.mean(),
        }
