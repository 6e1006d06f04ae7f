"""Monte Carlo prediction: values as mean returns, on-policy or by importance sampling (Sutton & Barto 2018, 5.1, 5.5).

    initialise V(s), C(s) = 0 for all s; a policy pi and a behaviour b are given, the same if on-policy
    repeat
        run b                                                                           (the collector)
        for each step t of each episode that is over by now (first visits: the episode's first in s = s_t):
            G <- r_{t+1} + gamma r_{t+2} + ... until the episode's end
            rho <- product from t to the end of pi(a | s) / b(a | s)                     1 if on-policy
            ordinary   C(s) <- C(s) + 1,    V(s) <- V(s) + [rho G - V(s)] / C(s)
            weighted   C(s) <- C(s) + rho,  V(s) <- V(s) + rho [G - V(s)] / C(s)

With a learning rate alpha in place of the mean: V(s) <- V(s) + alpha rho [G - V(s)], in the order of the steps. Nothing
is bootstrapped: the return of an episode that a time limit ends stops there. (First formulation: Barto & Duff 1994.)
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.returns import discounted_returns
from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import Past, PolicyBehavior, averaged, draw, first_visits, moved, numbered, policy_table, sizes
from parnassus.types import Count, Fraction, Key, Metrics, Spec, Transition, pytree


class Learner(NamedTuple):
    v: Float[Array, "S"]
    weight: Float[Array, "S"]  # C
    policy: Float[Array, "S A"]  # pi(a | s)
    behavior: Float[Array, "S A"]  # b(a | s)
    past: Past
    first_state: Int[Array, ""]
    progress: Progress


@pytree
class MonteCarloPrediction:
    """The values of a given policy; Discrete observations and actions, episodes that end."""

    visits: Literal["first", "every"] = "first"  # which steps of an episode count for a state
    weighting: Literal["ordinary", "weighted"] = "weighted"  # how returns of another policy's episodes are averaged
    learning_rate: Fraction | Linear | None = None  # alpha, the step towards a return; None: the mean of all
    num_steps: Count = 100  # T: steps in each environment per iteration
    longest: Count = 1_000  # steps of an unfinished episode that are remembered, besides those T
    discount: Fraction = 0.99  # gamma, of future rewards
    initial_value: float = 0.0  # V(s) before anything is known
    policy: Float[Array, "S A"] | None = None  # pi(a | s); None is the uniform one
    behavior_policy: Float[Array, "S A"] | None = None  # b(a | s), which acts; None is pi

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete, or a policy is for others."""
        num_states, num_actions, first_state = sizes(spec, "Monte Carlo prediction")
        policy = policy_table(self.policy, num_states, num_actions, "policy")
        other = policy if self.behavior_policy is None else self.behavior_policy
        behavior = policy_table(other, num_states, num_actions, "behavior_policy")
        v = jnp.full(num_states, self.initial_value, jnp.float32)
        past = Past.create(self.longest, spec.num_envs)
        return Learner(v, jnp.zeros(num_states), policy, behavior, past, first_state, Progress.start())

    def behavior(self, learner: Learner) -> PolicyBehavior:
        """The policy that acts, which stays."""
        return PolicyBehavior(learner.behavior, learner.first_state)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(
        self, behavior: PolicyBehavior, memory: tuple, observation: Int[Array, "N"], key: Key, explore: bool
    ) -> tuple:
        """A draw from the behaviour, exploring or not."""
        return draw(behavior, observation, key), memory, {}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """The returns of the episodes that are over."""
        steps, use, past = learner.past.with_(numbered(trajectory, learner.first_state))
        s, a = steps.observation, steps.action
        returns = discounted_returns(steps.reward, steps.terminated, steps.truncated, self.discount)
        rho = self.ratios(learner.policy[s, a] / learner.behavior[s, a], steps)
        if self.visits == "first":
            use = first_visits(s, steps.done, use, len(learner.v)) & use
        v, weight, use = learner.v, learner.weight, use.astype(jnp.float32)
        error = use * (returns - v[s])
        if self.learning_rate is not None:
            v = moved(v, (s,), returns, use * rho * at(self.learning_rate, learner.progress))
        else:
            share = use * rho if self.weighting == "weighted" else use
            v, weight = averaged(v, weight, (s,), returns, use * rho, share)
        progress = learner.progress.advance(trajectory.reward)
        metrics = {"loss/value": (error**2).sum() / jnp.maximum(use.sum(), 1.0), "value/mean": v.mean()}
        return learner._replace(v=v, weight=weight, past=past, progress=progress), metrics

    def ratios(self, each: Float[Array, "T N"], steps: Transition) -> Float[Array, "T N"]:
        """rho of each step: the product of the ratios from there to the episode's end."""

        def back(after: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
            ratio, done = step
            product = ratio * jnp.where(done, 1.0, after)
            return product, product

        return jax.lax.scan(back, jnp.ones(each.shape[1]), (each, steps.done), reverse=True)[1]
