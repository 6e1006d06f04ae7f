"""Off-policy Monte Carlo control, by weighted importance sampling (Sutton & Barto 2018, section 5.7).

    initialise Q(s, a), C(s, a) = 0 for all s, a; pi is greedy for Q
    repeat
        act epsilon-greedily on Q, with probabilities b(a | s)                          (the collector)
        for each episode that is over by now: G <- 0, W <- 1, and for each of its steps, the last first:
            G <- r + gamma G
            C(s, a) <- C(s, a) + W
            Q(s, a) <- Q(s, a) + W / C(s, a) [G - Q(s, a)]
            if a != pi(s): leave the episode
            W <- W / b(a | s)

It learns from the tails of episodes: from the last action that pi would not have taken. Nothing is bootstrapped: the
return of an episode that a time limit ends stops there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import Behavior, Past, epsilon_greedy_policy, numbered, sizes
from parnassus.tabular import act as act_epsilon_greedily
from parnassus.types import Count, Fraction, Key, Metrics, Spec, Transition, pytree


class Learner(NamedTuple):
    q: Float[Array, "S A"]
    weight: Float[Array, "S A"]  # C
    past: Past
    first_state: Int[Array, ""]
    progress: Progress


@pytree
class OffPolicyMonteCarlo:
    """Control by weighted returns of another policy; Discrete observations and actions, episodes that end."""

    num_steps: Count = 100  # T: steps in each environment per iteration
    longest: Count = 1_000  # steps of an unfinished episode that are remembered, besides those T
    discount: Fraction = 0.99  # gamma, of future rewards
    epsilon: Fraction | Linear = 0.1  # the probability of a random action
    initial_value: float = 0.0  # Q(s, a) before anything is known

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete."""
        num_states, num_actions, first_state = sizes(spec, "Off-policy Monte Carlo")
        q = jnp.full((num_states, num_actions), self.initial_value, jnp.float32)
        past = Past.create(self.longest, spec.num_envs, ("probability",))
        return Learner(q, jnp.zeros_like(q), past, first_state, Progress.start())

    def behavior(self, learner: Learner) -> Behavior:
        """The table, and how far epsilon has come."""
        return Behavior(learner.q, learner.first_state, learner.progress)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Int[Array, "N"], key: Key, explore: bool) -> tuple:
        """Epsilon-greedy, with b(a | s) for `learn`; greedy where not exploring."""
        action = act_epsilon_greedily(behavior, observation, key, explore, self.epsilon)
        epsilon = at(self.epsilon, behavior.progress)
        policy = epsilon_greedy_policy(behavior.q[observation - behavior.first_state], epsilon)
        return action, memory, {"probability": policy[jnp.arange(len(action)), action]}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """The tails of the episodes that are over, from the last step backwards."""
        steps, use, past = learner.past.with_(numbered(trajectory, learner.first_state))

        def back(carry: tuple, row: tuple[Transition, Array]) -> tuple[tuple, Array]:
            q, weight, total, ratio = carry
            step, use = row
            here = step.observation, step.action
            total = step.reward + self.discount * jnp.where(step.done, 0.0, total)
            ratio = jnp.where(use, jnp.where(step.done, 1.0, ratio), 0.0)  # 0: the episode was left
            weight = weight.at[here].add(ratio)
            error = total - q[here]
            q = q.at[here].add(jnp.where(ratio > 0, ratio / jnp.maximum(weight[here], 1e-30) * error, 0.0))
            agrees = step.action == q[step.observation].argmax(-1)
            after = jnp.where(agrees, ratio / step.extras["probability"], 0.0)
            return (q, weight, total, after), jnp.where(ratio > 0, error**2, 0.0).mean()

        zero = jnp.zeros(trajectory.reward.shape[1])
        safe = steps._replace(extras={"probability": jnp.where(use, steps.extras["probability"], 1.0)})
        carry = learner.q, learner.weight, zero, zero
        (q, weight, _, _), squared_errors = jax.lax.scan(back, carry, (safe, use), reverse=True)
        progress = learner.progress.advance(trajectory.reward)
        metrics = {"loss/value": squared_errors.mean(), "value/mean": q.mean()}
        return Learner(q, weight, past, learner.first_state, progress), metrics
