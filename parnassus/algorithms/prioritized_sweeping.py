"""Prioritised sweeping: plan where values are most wrong (Moore & Atkeson 1993; Sutton & Barto 2018, section 8.4).

    initialise Q(s, a), Model(s, a) and a priority P(s, a) = 0 for all s, a
    repeat
        choose a in s epsilon-greedily from Q; take it, observe r, s'                    (the collector)
        Model(s, a) <- r, s'
        P(s, a) <- |r + gamma (1 - terminated) max_a' Q(s', a') - Q(s, a)|, if that is above theta
        repeat n times, while any priority is above 0:
            s, a <- argmax P;  P(s, a) <- 0
            r, s' <- Model(s, a)
            Q(s, a) <- Q(s, a) + alpha [r + gamma (1 - terminated) max_a' Q(s', a') - Q(s, a)]
            for each s_, a_ that the model says leads to s, with r_:
                p <- |r_ + gamma max_a Q(s, a) - Q(s_, a_)|;  P(s_, a_) <- max(p, P(s_, a_)), if p is above theta

The model keeps the last outcome: for worlds that do the same each time. The queue is a table, its head an argmax.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import Behavior, act, numbered, sizes
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, pytree
from parnassus.world_models.table import TableModel


class Learner(NamedTuple):
    q: Float[Array, "S A"]
    priority: Float[Array, "S A"]  # P
    model: TableModel
    first_state: Int[Array, ""]
    progress: Progress


@pytree
class PrioritizedSweeping:
    """Prioritised sweeping with an epsilon-greedy behaviour; Discrete observations and actions."""

    learning_rate: Fraction | Linear = 0.1  # alpha, the step towards the target
    num_plans: Count = 5  # n: imagined steps for each real one, at most
    threshold: NonNegative = 1e-4  # theta: smaller errors are left alone
    num_steps: Count = 1  # T: steps in each environment per iteration
    discount: Fraction = 0.95  # gamma, of future rewards
    epsilon: Fraction | Linear = 0.1  # the probability of a random action
    initial_value: float = 0.0  # Q(s, a) before anything is known; optimistic values explore

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete."""
        num_states, num_actions, first_state = sizes(spec, "Prioritised sweeping")
        q = jnp.full((num_states, num_actions), self.initial_value, jnp.float32)
        model = TableModel.create(num_states, num_actions)
        return Learner(q, jnp.zeros_like(q), model, first_state, Progress.start())

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
        """For each time step, in order, `num_plans` updates in the order of the priorities."""
        alpha = at(self.learning_rate, learner.progress)
        num_actions = learner.q.shape[1]

        def experience(
            carry: tuple[Array, Array, TableModel], step: Transition
        ) -> tuple[tuple[Array, Array, TableModel], Array]:
            q, priority, model = carry
            model = model.learn(step)
            error = self.error(q, model, step.observation, step.action)
            urgent = jnp.where(jnp.abs(error) > self.threshold, jnp.abs(error), 0.0)
            priority = priority.at[step.observation, step.action].max(urgent)

            def plan(_: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
                q, priority = carry
                s, a = jnp.divmod(priority.argmax(), num_actions)
                known = priority[s, a] > 0
                q = q.at[s, a].add(jnp.where(known, alpha * self.error(q, model, s, a), 0.0))
                priority = priority.at[s, a].set(0.0)
                leads_there = (model.next_state == s) & (model.last_seen >= 0) & ~model.terminated & known
                error = jnp.abs(model.reward + self.discount * q[s].max() - q)
                return q, jnp.where(leads_there & (error > self.threshold), jnp.maximum(priority, error), priority)

            q, priority = jax.lax.fori_loop(0, self.num_plans, plan, (q, priority))
            return (q, priority, model), (error**2).mean()

        carry, steps = (learner.q, learner.priority, learner.model), numbered(trajectory, learner.first_state)
        (q, priority, model), squared_errors = jax.lax.scan(experience, carry, steps)
        progress = learner.progress.advance(trajectory.reward)
        metrics = {"loss/value": squared_errors.mean(), "value/mean": q.mean(), "model/known": model.count / q.size}
        return Learner(q, priority, model, learner.first_state, progress), metrics

    def error(self, q: Array, model: TableModel, s: Int[Array, "*n"], a: Int[Array, "*n"]) -> Float[Array, "*n"]:
        """What the model says (s, a) is worth, less what the table says."""
        target = model.reward[s, a] + self.discount * (1.0 - model.terminated[s, a]) * q[model.next_state[s, a]].max(-1)
        return target - q[s, a]
