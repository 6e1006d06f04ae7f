"""TD(lambda): prediction with eligibility traces (Sutton 1988; van Seijen & Sutton 2014; Sutton & Barto 2018, ch. 12).

    initialise V(s) for all s; a policy pi is given; at each episode's start e(s) = 0 for all s
    repeat
        take a ~ pi(. | s), observe r, s'                                               (the collector)
        delta <- r + gamma (1 - terminated) V(s') - V(s)
        e <- gamma lambda e, and then e(s) <- e(s) + 1        accumulating
                                      e(s) <- 1               replacing
                                      e(s) <- 1 + (1 - alpha) e(s)      true online ("dutch")
        V <- V + alpha delta e
    true online, besides: V <- V + alpha (V(s) - V_old) (e - 1_s), where V_old is what V(s) was a step ago

The true online form equals the online lambda-return algorithm; the others come close where alpha is small. lambda = 0
is TD(0), lambda = 1 is Monte Carlo. With N environments, each has traces of its own, and their updates are added.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import PolicyBehavior, draw, numbered, policy_table, sizes
from parnassus.types import Count, Fraction, Key, Metrics, Spec, Transition, pytree


class Learner(NamedTuple):
    v: Float[Array, "S"]
    policy: Float[Array, "S A"]  # pi(a | s)
    traces: Float[Array, "N S"]  # e
    old: Float[Array, "N"]  # V_old
    first_state: Int[Array, ""]
    progress: Progress


@pytree
class TDLambda:
    """The values of a given policy; Discrete observations and actions."""

    learning_rate: Fraction | Linear = 0.1  # alpha, the step along the traces
    trace_decay: Fraction = 0.8  # lambda
    traces: Literal["accumulating", "replacing", "true-online"] = "true-online"  # what a visit adds to a trace
    num_steps: Count = 1  # T: steps in each environment per iteration
    discount: Fraction = 0.99  # gamma, of future rewards
    initial_value: float = 0.0  # V(s) before anything is known
    policy: Float[Array, "S A"] | None = None  # pi(a | s); None is the uniform one

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete, or the policy is for others."""
        num_states, num_actions, first_state = sizes(spec, "TD(lambda)")
        policy = policy_table(self.policy, num_states, num_actions, "policy")
        v = jnp.full(num_states, self.initial_value, jnp.float32)
        traces, old = jnp.zeros((spec.num_envs, num_states)), jnp.zeros(spec.num_envs)
        return Learner(v, policy, traces, old, first_state, Progress.start())

    def behavior(self, learner: Learner) -> PolicyBehavior:
        """The policy, which stays."""
        return PolicyBehavior(learner.policy, learner.first_state)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(
        self, behavior: PolicyBehavior, memory: tuple, observation: Int[Array, "N"], key: Key, explore: bool
    ) -> tuple:
        """A draw from the policy, exploring or not: its values are what is asked for."""
        return draw(behavior, observation, key), memory, {}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """One update of all states for each step."""
        alpha = at(self.learning_rate, learner.progress)

        def observe(carry: tuple[Array, Array, Array], step: Transition) -> tuple[tuple[Array, Array, Array], Array]:
            v, e, old = carry
            env, s = jnp.arange(len(old)), step.observation
            now, following = v[s], jnp.where(step.terminated, 0.0, v[step.next_observation])
            delta = step.reward + self.discount * following - now
            e = self.discount * self.trace_decay * e
            if self.traces == "accumulating":
                e = e.at[env, s].add(1.0)
            elif self.traces == "replacing":
                e = e.at[env, s].set(1.0)
            else:
                e = e.at[env, s].add(1.0 - alpha * e[env, s])
                surprise = now - old  # of an episode's first step it does not matter: there e is 1_s
                v = (v + alpha * (surprise[:, None] * e).sum(0)).at[s].add(-alpha * surprise)
            v = v + alpha * (delta[:, None] * e).sum(0)
            e = jnp.where(step.done[:, None], 0.0, e)
            return (v, e, following), (delta**2).mean()

        carry = learner.v, learner.traces, learner.old
        (v, e, old), squared_errors = jax.lax.scan(observe, carry, numbered(trajectory, learner.first_state))
        progress = learner.progress.advance(trajectory.reward)
        metrics = {"loss/value": squared_errors.mean(), "value/mean": v.mean()}
        return Learner(v, learner.policy, e, old, learner.first_state, progress), metrics
