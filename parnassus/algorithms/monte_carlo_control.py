"""Monte Carlo control, on-policy: epsilon-soft, or with exploring starts (Sutton & Barto 2018, sections 5.3 and 5.4).

    initialise Q(s, a), C(s, a) = 0 for all s, a
    repeat
        act epsilon-greedily on Q (exploring starts: the first action of an episode at random, the others greedily)
        for each step t of each episode that is over by now (first visits: the episode's first of (s, a)):
            G <- r_{t+1} + gamma r_{t+2} + ... until the episode's end
            C(s, a) <- C(s, a) + 1,  Q(s, a) <- Q(s, a) + [G - Q(s, a)] / C(s, a)

With a learning rate alpha in place of the mean: Q(s, a) <- Q(s, a) + alpha [G - Q(s, a)], which forgets the returns of
older policies. Nothing is bootstrapped: the return of an episode that a time limit ends stops there. Exploring starts
need an environment whose episodes may begin in any state. (First formulation: Barto & Duff 1994.)
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.exploration import epsilon_greedy
from parnassus.returns import discounted_returns
from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import Behavior, Past, averaged, first_visits, moved, numbered, sizes
from parnassus.types import Count, Fraction, Key, Metrics, Spec, Transition, pytree


class Learner(NamedTuple):
    q: Float[Array, "S A"]
    weight: Float[Array, "S A"]  # C
    past: Past
    first_state: Int[Array, ""]
    progress: Progress


@pytree
class MonteCarloControl:
    """Control by mean returns; Discrete observations and actions, episodes that end."""

    visits: Literal["first", "every"] = "first"  # which steps of an episode count for a state and action
    exploring_starts: bool = False  # in place of epsilon
    learning_rate: Fraction | Linear | None = None  # alpha, the step towards a return; None: the mean of all
    num_steps: Count = 100  # T: steps in each environment per iteration
    longest: Count = 1_000  # steps of an unfinished episode that are remembered, besides those T
    discount: Fraction = 0.99  # gamma, of future rewards
    epsilon: Fraction | Linear = 0.1  # the probability of a random action
    initial_value: float = 0.0  # Q(s, a) before anything is known

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete."""
        num_states, num_actions, first_state = sizes(spec, "Monte Carlo control")
        q = jnp.full((num_states, num_actions), self.initial_value, jnp.float32)
        past = Past.create(self.longest, spec.num_envs)
        return Learner(q, jnp.zeros_like(q), past, first_state, Progress.start())

    def behavior(self, learner: Learner) -> Behavior:
        """The table, and how far epsilon has come."""
        return Behavior(learner.q, learner.first_state, learner.progress)

    def initial_memory(self, spec: Spec) -> Int[Array, "N"]:
        """Whether the episode has begun: 0 before its first action."""
        return jnp.zeros(spec.num_envs, jnp.int32)

    def act(
        self, behavior: Behavior, memory: Int[Array, "N"], observation: Int[Array, "N"], key: Key, explore: bool
    ) -> tuple:
        """Epsilon-greedy, or random at first and then greedy; greedy where not exploring."""
        values = behavior.q[observation - behavior.first_state]
        if not explore:
            epsilon = jnp.zeros_like(values[:, 0])
        elif self.exploring_starts:
            epsilon = (memory == 0).astype(jnp.float32)
        else:
            epsilon = jnp.full_like(values[:, 0], at(self.epsilon, behavior.progress))
        return epsilon_greedy(key, values, epsilon), jnp.ones_like(memory), {}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """The returns of the episodes that are over."""
        steps, use, past = learner.past.with_(numbered(trajectory, learner.first_state))
        s, a = steps.observation, steps.action
        returns = discounted_returns(steps.reward, steps.terminated, steps.truncated, self.discount)
        if self.visits == "first":
            use = first_visits(s * learner.q.shape[1] + a, steps.done, use, learner.q.size) & use
        q, weight, use = learner.q, learner.weight, use.astype(jnp.float32)
        error = use * (returns - q[s, a])
        if self.learning_rate is not None:
            q = moved(q, (s, a), returns, use * at(self.learning_rate, learner.progress))
        else:
            q, weight = averaged(q, weight, (s, a), returns, use, use)
        progress = learner.progress.advance(trajectory.reward)
        metrics = {"loss/value": (error**2).sum() / jnp.maximum(use.sum(), 1.0), "value/mean": q.mean()}
        return Learner(q, weight, past, learner.first_state, progress), metrics
