"""PlaNet: planning in the latent space of a learned model (Hafner et al. 2019, arXiv 1811.04551, Algorithm 1).

    fill a replay D with segments of random actions, T steps each
    repeat
        for T steps in each of N environments:
            h_t <- f(h_{t-1}, s_{t-1}, a_{t-1}),  s_t ~ q(s_t | h_t, o_t)               (the actor's memory: the filter)
            a_t <- plan from (h_t, s_t) in the model: only states and rewards, no observations, are imagined
            act by a_t + noise
        store the segments in D                                                          (the collector, `replay.add`)
        for each gradient step, with a minibatch of segments from D:
            descend  the model's loss, equation 3                                        (`world_models/recurrent.py`)

Observations may show less than the state, and may be images: what was seen is remembered in h. The paper's tasks never
terminate; here the model learns where episodes do. A segment starts anywhere in an episode, and the model there from
nothing; the paper cuts its segments from whole episodes, at random.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import optax
from gymnasium import spaces
from jaxtyping import Array, Float, Num

from parnassus.encoding import zeros
from parnassus.off_policy import improve
from parnassus.planning.cem import CEM, MPPI
from parnassus.planning.random_shooting import RandomShooting
from parnassus.planning.sequences import alone, draw
from parnassus.replay import Replay
from parnassus.rollout import where
from parnassus.schedules import Linear, Progress, at
from parnassus.types import (
    BadInput,
    Count,
    Key,
    Metrics,
    NonNegative,
    Spec,
    Transition,
    Tree,
    WholeNumber,
    pytree,
)
from parnassus.world_models.recurrent import Networks, RecurrentModel, State, latent_interface, nowhere


class Learner(NamedTuple):
    model: RecurrentModel
    optimizer: optax.OptState
    replay: Replay  # D: a row is a segment
    progress: Progress


class Behavior(NamedTuple):
    model: RecurrentModel
    progress: Progress


class Remembered(NamedTuple):
    """What the actor knows from one step to the next."""

    state: State  # (h, s)
    action: Float[Array, "N n"]  # the last, as the model sees it
    plan: Any  # the planner's own memory


@pytree
class PlaNet:
    """Plans in a recurrent state-space model; any observations, the actions that the planner can choose among."""

    planner: CEM | MPPI | RandomShooting = CEM(candidates=200, elites=20, iterations=5)
    learning_rate: NonNegative | Linear = 1e-3  # Adam's step size
    num_steps: Count = 50  # T: steps in each environment per iteration, and in a segment
    num_updates: Count = 50  # gradient steps per iteration
    minibatch_size: Count = 32  # segments per gradient step
    replay_size: Count = 100_000  # steps that are kept
    learning_starts: WholeNumber = 1_000  # environment steps with random actions, before the first update
    noise: NonNegative | Linear = 0.3  # standard deviation of noise on real actions; the share of others drawn evenly
    observation_std: NonNegative = 0.1  # of the encoded observation around its mean in the model: less, more detail
    reward_std: NonNegative = 0.1  # of the reward around its mean, in standard deviations of all rewards
    free_nats: NonNegative = 3.0  # that the posterior may differ from the prior at no cost
    max_grad_norm: NonNegative = 100.0
    normalize_observations: bool = True  # vectors, by running statistics
    deterministic_size: Count = 128  # of h
    stochastic_size: Count = 16  # of s
    hidden_sizes: tuple[int, ...] = (128,)  # of what reads observations, and of what predicts them
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "elu"  # after each hidden layer

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for spaces that the model cannot learn or the planner cannot choose among, and for a replay
        in which one iteration does not fit."""
        self.planner.check(spec.action_space)
        if self.replay_size < spec.num_envs * self.num_steps:
            raise BadInput(
                f"replay_size must be at least num_envs * num_steps ({spec.num_envs} * {self.num_steps}): it keeps "
                f"whole segments, not {self.replay_size}"
            )
        model = RecurrentModel.create(
            key,
            spec,
            self.deterministic_size,
            self.stochastic_size,
            self.hidden_sizes,
            self.activation,
            self.normalize_observations,
        )
        batch = (self.num_steps,)
        observation, action = zeros(spec.observation_space, batch), zeros(spec.action_space, batch)
        reward, over = jnp.zeros(batch), jnp.zeros(batch, bool)
        segment = Transition(observation, action, reward, observation, over, over, {})
        replay = Replay.create(segment, self.replay_size // self.num_steps)
        progress = Progress.start()
        return Learner(model, self.optimizer(progress).init(model.networks), replay, progress)

    def behavior(self, learner: Learner) -> Behavior:
        """The model, and how far training is: the first actions are random."""
        return Behavior(learner.model, learner.progress)

    def initial_memory(self, spec: Spec) -> Remembered:
        """An episode starts from zeros: the state, and the action before it."""
        interface = latent_interface(spec, self.deterministic_size + self.stochastic_size)
        state = nowhere((spec.num_envs,), self.deterministic_size, self.stochastic_size)
        action = jnp.zeros((spec.num_envs, interface.action_size))
        return Remembered(state, action, self.planner.initial_memory(spec.action_space, spec.num_envs))

    def act(self, behavior: Behavior, memory: Remembered, observation: Tree, key: Key, explore: bool) -> tuple:
        """The first action of a plan from where the filter is now; with noise, and drawn evenly at first, if exploring.
        Extras tell what the planner says of the plan."""
        filter_key, plan_key, random_key, noise_key = jax.random.split(key, 4)
        model, progress = behavior
        state = model.observe(memory.state, memory.action, observation, filter_key)
        models, num_envs = alone(model), len(memory.action)

        def plan() -> tuple:
            one = lambda state, memory, key: self.planner(models, state, memory, key)  # noqa: E731
            return jax.vmap(one)(state, memory.plan, jax.random.split(plan_key, num_envs))

        def plan_and_disturb() -> tuple:
            action, plan_memory, extras = plan()
            return self.disturb(action, model.action_space, noise_key, progress), plan_memory, extras

        def guess() -> tuple:
            action, _, extras = jax.eval_shape(plan)
            nothing = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan), extras)
            return draw(model.action_space, random_key, (num_envs,)).astype(action.dtype), memory.plan, nothing

        if explore:
            starting = progress.steps < self.learning_starts
            action, plan_memory, extras = jax.lax.cond(starting, guess, plan_and_disturb)
        else:
            action, plan_memory, extras = plan()
        return action, Remembered(state, model.encode(action), plan_memory), extras

    def disturb(
        self, action: Num[Array, "N *a"], space: gymnasium.Space, key: Key, progress: Progress
    ) -> Num[Array, "N *a"]:
        """Real actions with Gaussian noise, in their bounds; a share of the others replaced by random ones."""
        scale = at(self.noise, progress)
        if isinstance(space, spaces.Box):
            noisy = action + scale * jax.random.normal(key, action.shape)
            return jnp.clip(noisy, space.low[None], space.high[None])
        which_key, draw_key = jax.random.split(key)
        random = draw(space, draw_key, action.shape[:1])
        return where(jax.random.bernoulli(which_key, scale, action.shape[:1]), random, action)

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """Store each environment's segment, then `num_updates` gradient steps."""
        segments = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1)[None], trajectory._replace(extras={}))
        learner = learner._replace(
            model=learner.model.update_statistics(trajectory),
            replay=learner.replay.add(segments),
            progress=learner.progress.advance(trajectory.reward),
        )
        ready = learner.progress.steps >= self.learning_starts
        learner, metrics = improve(learner, self.gradient_step, key, self.num_updates, ready)
        plans = {name: jnp.nanmean(x) for name, x in trajectory.extras.items()}
        return learner, {**metrics, **plans}

    def gradient_step(self, learner: Learner, replay: Replay, key: Key) -> tuple[Learner, Metrics]:
        """One gradient step on a fresh minibatch of segments."""
        sample_key, noise_key = jax.random.split(key)
        segments = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), replay.sample(sample_key, self.minibatch_size))
        noise = jax.random.normal(noise_key, (self.num_steps + 1, self.minibatch_size, self.stochastic_size))

        def loss(networks: Networks) -> tuple[Float[Array, ""], Metrics]:
            model = dataclasses.replace(learner.model, networks=networks)
            return model.loss(segments, noise, self.observation_std, self.reward_std, self.free_nats)

        gradients, metrics = jax.grad(loss, has_aux=True)(learner.model.networks)
        updates, optimizer = self.optimizer(learner.progress).update(gradients, learner.optimizer)
        networks = optax.apply_updates(learner.model.networks, updates)
        return learner._replace(
            model=dataclasses.replace(learner.model, networks=networks), optimizer=optimizer
        ), metrics

    def optimizer(self, progress: Progress) -> optax.GradientTransformation:
        """Adam with clipped gradients."""
        clip = optax.clip_by_global_norm(self.max_grad_norm)
        return optax.chain(clip, optax.adam(at(self.learning_rate, progress)))
