"""Tabular Q-learning: off-policy temporal-difference control (Watkins 1989).

    initialise Q(s, a) for all s, a
    repeat
        choose a in s epsilon-greedily from Q; take it, observe r, s'                    (the collector)
        Q(s, a) <- Q(s, a) + alpha [r + gamma (1 - terminated) max_a' Q(s', a') - Q(s, a)]

With N environments, N such steps are taken side by side from the same Q.
"""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from gymnasium import spaces
from jaxtyping import Array, Float, Int

from parnassus.exploration import epsilon_greedy
from parnassus.schedules import Linear, Progress, at
from parnassus.types import BadInput, Count, Fraction, Key, Metrics, Spec, Transition, pytree


class Learner(NamedTuple):
    q: Float[Array, "S A"]
    first_state: Int[Array, ""]  # the number that the observation space calls its first state
    progress: Progress


Behavior = Learner  # a table has nothing to leave behind


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
        for name, space in (("observation", spec.observation_space), ("action", spec.action_space)):
            if not isinstance(space, spaces.Discrete):
                raise BadInput(f"Q-learning keeps a table and needs a Discrete {name} space, not {space}")
        states, actions = cast(spaces.Discrete, spec.observation_space), cast(spaces.Discrete, spec.action_space)
        q = jnp.full((int(states.n), int(actions.n)), self.initial_value, jnp.float32)
        return Learner(q, jnp.asarray(int(states.start), jnp.int32), Progress.start())

    def behavior(self, learner: Learner) -> Behavior:
        """The table, and how far epsilon has come."""
        return learner

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Int[Array, "N"], key: Key, explore: bool) -> tuple:
        """Epsilon-greedy; greedy where not exploring."""
        epsilon = at(self.epsilon, behavior.progress) if explore else 0.0
        return epsilon_greedy(key, behavior.q[observation - behavior.first_state], epsilon), memory, {}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """One update per time step, in order."""
        alpha = at(self.learning_rate, learner.progress)

        def update(q: Float[Array, "S A"], step: Transition) -> tuple[Float[Array, "S A"], Float[Array, ""]]:
            s, next_s = step.observation - learner.first_state, step.next_observation - learner.first_state
            target = step.reward + self.discount * (1.0 - step.terminated) * q[next_s].max(-1)
            error = target - q[s, step.action]
            return q.at[s, step.action].add(alpha * error), (error**2).mean()

        q, squared_errors = jax.lax.scan(update, learner.q, trajectory)
        progress = learner.progress.advance(trajectory.reward)
        metrics = {"loss/value": squared_errors.mean(), "value/mean": q.mean()}
        if isinstance(self.epsilon, Linear):
            metrics["policy/epsilon"] = jnp.asarray(at(self.epsilon, progress))
        return Learner(q, learner.first_state, progress), metrics
