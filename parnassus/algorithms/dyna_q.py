"""Dyna-Q: acting, learning a model and planning with it, all by Q-learning (Sutton 1990; Sutton & Barto 2018, 8.2-8.3).

    initialise Q(s, a) and Model(s, a) for all s, a
    repeat
        choose a in s epsilon-greedily from Q; take it, observe r, s'                    (the collector)
        Q(s, a) <- Q(s, a) + alpha [r + gamma (1 - terminated) max_a' Q(s', a') - Q(s, a)]
        Model(s, a) <- r, s'
        repeat n times:
            s, a <- a state seen before, and an action taken in it, at random
            r, s' <- Model(s, a)
            Q(s, a) <- Q(s, a) + alpha [r + gamma (1 - terminated) max_a' Q(s', a') - Q(s, a)]

Dyna-Q+ (`plus`): actions never taken are planned with too, as leading nowhere, and what was not tried for tau steps
pays r + kappa sqrt(tau) in the imagination. With N environments, N such steps and N n plans are made side by side.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parnassus.schedules import Linear, Progress, at
from parnassus.tabular import Behavior, act, numbered, sizes
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, WholeNumber, pytree
from parnassus.world_models.table import TableModel


class Learner(NamedTuple):
    q: Float[Array, "S A"]
    model: TableModel
    first_state: Int[Array, ""]
    progress: Progress


@pytree
class DynaQ:
    """Dyna-Q with an epsilon-greedy behaviour; Discrete observations and actions."""

    learning_rate: Fraction | Linear = 0.1  # alpha, the step towards the target
    num_plans: WholeNumber = 10  # n: imagined steps for each real one; 0 is Q-learning
    plus: bool = False  # Dyna-Q+
    bonus: NonNegative = 1e-3  # kappa of Dyna-Q+
    num_steps: Count = 1  # T: steps in each environment per iteration
    discount: Fraction = 0.95  # gamma, of future rewards
    epsilon: Fraction | Linear = 0.1  # the probability of a random action
    initial_value: float = 0.0  # Q(s, a) before anything is known; optimistic values explore

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if observations or actions are not Discrete."""
        num_states, num_actions, first_state = sizes(spec, "Dyna-Q")
        q = jnp.full((num_states, num_actions), self.initial_value, jnp.float32)
        return Learner(q, TableModel.create(num_states, num_actions), first_state, Progress.start())

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
        """For each time step, in order, a real update and `num_plans` imagined ones."""
        alpha = at(self.learning_rate, learner.progress)

        def update(q: Float[Array, "S A"], step: Transition) -> tuple[Float[Array, "S A"], Float[Array, "N"]]:
            following = q[step.next_observation].max(-1)
            target = step.reward + self.discount * (1.0 - step.terminated) * following
            error = target - q[step.observation, step.action]
            return q.at[step.observation, step.action].add(alpha * error), error

        def experience(
            carry: tuple[Array, TableModel], step_and_key: tuple[Transition, Key]
        ) -> tuple[tuple[Array, TableModel], Array]:
            q, model = carry
            step, key = step_and_key
            q, error = update(q, step)
            model = model.learn(step)
            plan = lambda q, key: (update(q, self.imagine(model, key, len(error)))[0], None)  # noqa: E731
            q, _ = jax.lax.scan(plan, q, jax.random.split(key, self.num_plans))
            return (q, model), (error**2).mean()

        steps = numbered(trajectory, learner.first_state)
        keys = jax.random.split(key, len(trajectory.reward))
        (q, model), squared_errors = jax.lax.scan(experience, (learner.q, learner.model), (steps, keys))
        progress = learner.progress.advance(trajectory.reward)
        metrics = {"loss/value": squared_errors.mean(), "value/mean": q.mean(), "model/known": model.count / q.size}
        return Learner(q, model, learner.first_state, progress), metrics

    def imagine(self, model: TableModel, key: Key, num_envs: int) -> Transition:
        """A step from what was seen before, for each environment; leaves [N]."""
        pair_key, action_key, step_key = jax.random.split(key, 3)
        num_actions = model.reward.shape[1]
        number = model.order[jax.random.randint(pair_key, (num_envs,), 0, model.count)]
        s, a = number // num_actions, number % num_actions
        if self.plus:
            a = jax.random.randint(action_key, (num_envs,), 0, num_actions)
        step = model.step(s, a, step_key)
        reward = step.reward
        if self.plus:
            elapsed = model.time - 1 - jnp.maximum(model.last_seen[s, a], 0)
            reward += self.bonus * jnp.sqrt(elapsed.astype(jnp.float32))
        return Transition(s, a, reward, step.observation, step.terminated, step.truncated, {})
