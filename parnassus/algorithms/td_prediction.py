"""n-step temporal-difference prediction; n = 1 is TD(0) (Sutton 1988; Sutton & Barto 2018, sections 6.1 and 7.1).

    initialise V(s) for all s; a policy pi is given
    repeat
        take a ~ pi(. | s), observe r, s'                                               (the collector)
        for the step n - 1 before this one; where the episode is over, for each that is left, the oldest first:
            G <- r_{t+1} + gamma r_{t+2} + ... + gamma^(m-1) r_{t+m} + gamma^m (1 - terminated) V(s_{t+m})
            V(s_t) <- V(s_t) + alpha [G - V(s_t)]

m is n or, if that is shorter, the way to the episode's end. With N environments, N such updates are made side by side.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import PolicyBehavior, Window, draw, numbered, policy_table, sizes
from parnassus.types import Count, Fraction, Key, Metrics, Spec, Transition, pytree


class Learner(NamedTuple):
    v: Float[Array, "S"]
    policy: Float[Array, "S A"]  # pi(a | s)
    window: Window
    first_state: Int[Array, ""]
    progress: Progress


@pytree
class TDPrediction:
    """The values of a given policy; Discrete observations and actions."""

    learning_rate: Fraction | Linear = 0.1  # alpha, the step towards the target
    n: Count = 1  # rewards per target
    num_steps: Count = 1  # T: steps in each environment per iteration
    discount: Fraction = 0.99  # gamma, of future rewards
    initial_value: float = 0.0  # V(s) before anything is known
    policy: Float[Array, "S A"] | None = None  # pi(a | s); None is the uniform one

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete, or the policy is for others."""
        num_states, num_actions, first_state = sizes(spec, "TD prediction")
        policy = policy_table(self.policy, num_states, num_actions, "policy")
        v = jnp.full(num_states, self.initial_value, jnp.float32)
        return Learner(v, policy, Window.create(self.n, spec.num_envs), first_state, Progress.start())

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
        """One update for each step, n - 1 steps late."""
        alpha = at(self.learning_rate, learner.progress)

        def observe(carry: tuple[Array, Window], step: Transition) -> tuple[tuple[Array, Window], Array]:
            v, window = carry
            window = window.push(step)
            after = jnp.where(step.terminated, 0.0, v[step.next_observation])
            returns, due = window.returns(self.discount, after), window.due(step.done)

            def update(v: Float[Array, "S"], k: Int[Array, ""]) -> Float[Array, "S"]:
                s = window.state[k]
                return v.at[s].add(jnp.where(due[k], alpha * (returns[k] - v[s]), 0.0))

            error = jnp.where(due[0], returns[0] - v[window.state[0]], 0.0)
            return (window.update(v, due, update), window.drop(step.done)), (error**2).mean()

        steps = numbered(trajectory, learner.first_state)
        (v, window), squared_errors = jax.lax.scan(observe, (learner.v, learner.window), steps)
        progress = learner.progress.advance(trajectory.reward)
        metrics = {"loss/value": squared_errors.mean(), "value/mean": v.mean()}
        return Learner(v, learner.policy, window, learner.first_state, progress), metrics
