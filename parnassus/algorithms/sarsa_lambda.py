"""SARSA(lambda): control with eligibility traces (Rummery & Niranjan 1994; Sutton & Barto 2018, section 12.7).

    initialise Q(s, a) for all s, a; at each episode's start e(s, a) = 0 for all s, a
    repeat
        choose a in s epsilon-greedily from Q                                           (the collector)
        for the step (s_t, a_t) before this one in the episode, whose reward is r:
            delta <- r + gamma Q(s, a) - Q(s_t, a_t)
            e <- gamma lambda e, and then e(s_t, a_t) <- e(s_t, a_t) + 1 (accumulating) or 1 (replacing)
            Q <- Q + alpha delta e
        take a, observe r, s'; where the episode is over, the same for this step, with delta <- r - Q(s, a)

The target needs the action that is taken next: an update is made once that is known, before the action after it is
chosen. Where a time limit cuts an episode there is none: sum_a pi(a | s') Q(s', a) stands for it. With N environments,
each has traces of its own, and their updates are added.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import Behavior, Window, act, expected_value, numbered, sizes
from parnassus.types import Count, Fraction, Key, Metrics, Spec, Transition, pytree


class Learner(NamedTuple):
    q: Float[Array, "S A"]
    traces: Float[Array, "N S A"]  # e
    window: Window  # the step before this one
    first_state: Int[Array, ""]
    progress: Progress


@pytree
class SARSALambda:
    """SARSA(lambda) with an epsilon-greedy policy; Discrete observations and actions."""

    learning_rate: Fraction | Linear = 0.1  # alpha, the step along the traces
    trace_decay: Fraction = 0.8  # lambda
    traces: Literal["accumulating", "replacing"] = "replacing"  # what a visit makes of a trace
    num_steps: Count = 1  # T: steps in each environment per iteration
    discount: Fraction = 0.99  # gamma, of future rewards
    epsilon: Fraction | Linear = 0.1  # the probability of a random action
    initial_value: float = 0.0  # Q(s, a) before anything is known; optimistic values explore

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete."""
        num_states, num_actions, first_state = sizes(spec, "SARSA(lambda)")
        q = jnp.full((num_states, num_actions), self.initial_value, jnp.float32)
        traces = jnp.zeros((spec.num_envs, num_states, num_actions))
        return Learner(q, traces, Window.create(1, spec.num_envs), first_state, Progress.start())

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
        """One update of all states and actions for each step, a step late."""
        alpha, epsilon = at(self.learning_rate, learner.progress), at(self.epsilon, learner.progress)
        env = jnp.arange(trajectory.reward.shape[1])

        def follow(
            q: Float[Array, "S A"],
            e: Float[Array, "N S A"],
            pair: tuple[Int[Array, "N"], Int[Array, "N"]],
            target: Float[Array, "N"],
            there: Bool[Array, "N"],
        ) -> tuple[Float[Array, "S A"], Float[Array, "N S A"], Float[Array, ""]]:
            """The update for a pair, in the environments where it is due."""
            decayed = self.discount * self.trace_decay * e
            visit = decayed.at[env, *pair]
            e = jnp.where(there[:, None, None], visit.add(1.0) if self.traces == "accumulating" else visit.set(1.0), e)
            delta = jnp.where(there, target - q[pair], 0.0)
            return q + alpha * (delta[:, None, None] * e).sum(0), e, (delta**2).mean()

        def observe(carry: tuple[Array, Array, Window], step: Transition) -> tuple[tuple, Array]:
            q, e, last = carry
            target = last.reward[0] + self.discount * q[step.observation, step.action]
            q, e, squared_error = follow(q, e, (last.state[0], last.action[0]), target, last.count == 1)
            after = jnp.where(step.terminated, 0.0, expected_value(q[step.next_observation], epsilon))
            q, e, _ = follow(q, e, (step.observation, step.action), step.reward + self.discount * after, step.done)
            last = last.push(step)
            last = last._replace(count=jnp.where(step.done, 0, last.count))
            return (q, jnp.where(step.done[:, None, None], 0.0, e), last), squared_error

        carry = learner.q, learner.traces, learner.window
        (q, e, last), squared_errors = jax.lax.scan(observe, carry, numbered(trajectory, learner.first_state))
        progress = learner.progress.advance(trajectory.reward)
        metrics = {"loss/value": squared_errors.mean(), "value/mean": q.mean()}
        return Learner(q, e, last, learner.first_state, progress), metrics
