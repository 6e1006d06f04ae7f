"""Double Q-learning: one table chooses, the other says what that is worth (van Hasselt 2010, Algorithm 1).

    initialise Q_1(s, a) and Q_2(s, a) for all s, a
    repeat
        choose a in s epsilon-greedily from Q_1 + Q_2; take it, observe r, s'            (the collector)
        toss a coin for which table i is updated; j is the other
            a* <- argmax_a' Q_i(s', a')
            Q_i(s, a) <- Q_i(s, a) + alpha [r + gamma (1 - terminated) Q_j(s', a*) - Q_i(s, a)]

The maximum of noisy values is too high on average; what one table thinks best, the other judges without that bias.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import Behavior, act, numbered, sizes
from parnassus.types import Count, Fraction, Key, Metrics, Spec, Transition, pytree


class Learner(NamedTuple):
    q: Float[Array, "2 S A"]
    first_state: Int[Array, ""]
    progress: Progress


@pytree
class DoubleQLearning:
    """Double Q-learning with an epsilon-greedy behaviour; Discrete observations and actions."""

    learning_rate: Fraction | Linear = 0.1  # alpha, the step towards the target
    num_steps: Count = 1  # T: steps in each environment per iteration
    discount: Fraction = 0.99  # gamma, of future rewards
    epsilon: Fraction | Linear = 0.1  # the probability of a random action
    initial_value: float = 0.0  # both tables before anything is known; optimistic values explore

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete."""
        num_states, num_actions, first_state = sizes(spec, "Double Q-learning")
        q = jnp.full((2, num_states, num_actions), self.initial_value, jnp.float32)
        return Learner(q, first_state, Progress.start())

    def behavior(self, learner: Learner) -> Behavior:
        """The tables' mean, and how far epsilon has come."""
        return Behavior(learner.q.mean(-3), learner.first_state, learner.progress)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Int[Array, "N"], key: Key, explore: bool) -> tuple:
        """Epsilon-greedy; greedy where not exploring."""
        return act(behavior, observation, key, explore, self.epsilon), memory, {}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """One update per time step, in order."""
        alpha = at(self.learning_rate, learner.progress)
        coins = jax.random.bernoulli(key, shape=trajectory.reward.shape).astype(jnp.int32)

        def update(
            q: Float[Array, "2 S A"], step_and_coin: tuple[Transition, Int[Array, "N"]]
        ) -> tuple[Float[Array, "2 S A"], Float[Array, ""]]:
            step, i = step_and_coin
            best = q[i, step.next_observation].argmax(-1)
            following = q[1 - i, step.next_observation, best]
            target = step.reward + self.discount * (1.0 - step.terminated) * following
            here = i, step.observation, step.action
            error = target - q[here]
            return q.at[here].add(alpha * error), (error**2).mean()

        q, squared_errors = jax.lax.scan(update, learner.q, (numbered(trajectory, learner.first_state), coins))
        progress = learner.progress.advance(trajectory.reward)
        return Learner(q, learner.first_state, progress), {
            "loss/value": squared_errors.mean(),
            "value/mean": q.mean(),
        }
