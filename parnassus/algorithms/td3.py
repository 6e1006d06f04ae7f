"""Twin delayed DDPG (Fujimoto, van Hoof & Meger 2018, arXiv 1802.09477, Algorithm 1).

    initialise the policy mu_theta, two critics Q_phi_1, Q_phi_2, targets equal to them, a replay D
    repeat
        act with a = clip(mu_theta(o) + noise, low, high) for T steps in each of N environments,
        at random at first; store them in D                                              (the collector, `remember`)
        repeat until there was one step of the critics for each step of the environments
            d times, each with a minibatch (o, a, r, o') from D:
                a' <- clip(mu_theta_target(o') + clip(noise', -c, c), low, high)         (target policy smoothing)
                y  <- r + gamma (1 - terminated) min_i Q_phi_i_target(o', a')            (clipped double Q-learning)
                descend  sum_i E[(Q_phi_i(o, a) - y)^2]
            ascend  E[Q_phi_1(o, mu_theta(o))] on the last of those minibatches          (delayed policy updates)
            phi_i_target <- phi_i_target + tau (phi_i - phi_i_target), theta_target alike

These are three changes to DDPG, and each can be undone: `policy_delay=1`, `target_noise=0.0`, `num_critics=1`.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from parnassus.encoding import Encoder
from parnassus.exploration import GaussianNoise, OrnsteinUhlenbeck
from parnassus.networks import Critics, Network, Torso, first_critic, polyak
from parnassus.off_policy import (
    DeterministicBehavior,
    Experience,
    act_with_noise,
    create_deterministic_policy,
    create_replay,
    example,
    flat,
    improve,
    remember,
)
from parnassus.replay import Replay
from parnassus.schedules import Linear, Progress, at
from parnassus.types import (
    BadInput,
    Count,
    Fraction,
    Key,
    Metrics,
    NonNegative,
    Spec,
    Transition,
    Tree,
    WholeNumber,
    pytree,
)


class Learner(NamedTuple):
    policy: Network  # theta
    critics: Network  # phi_1, phi_2
    target_policy: Network
    target_critics: Network
    optimizers: tuple[optax.OptState, optax.OptState]  # of the policy and of the critics
    replay: Replay  # D
    encoder: Encoder
    progress: Progress


@pytree
class TD3:
    """TD3; actions in a Box. An iteration has `policy_delay` steps, so that its updates come out even."""

    learning_rate: NonNegative | Linear = 3e-4  # Adam's step size for the policy
    critic_learning_rate: NonNegative | Linear = 3e-4  # Adam's step size for the critics
    num_steps: Count = 2  # T: steps in each environment per iteration
    updates_per_step: Count = 1  # gradient steps of the critics per environment step
    policy_delay: Count = 2  # d: gradient steps of the critics for one of the policy and of the targets
    minibatch_size: Count = 256  # transitions per gradient step
    replay_size: Count = 1_000_000  # transitions that are kept
    learning_starts: WholeNumber = 1_000  # environment steps with uniformly random actions, before the first update
    discount: Fraction = 0.99  # gamma, of future rewards
    tau: Fraction = 0.005  # the targets' step towards what they follow
    num_critics: Count = 2  # targets take the least of so many
    noise: GaussianNoise | OrnsteinUhlenbeck = GaussianNoise()  # added to the policy's action, which is in [-1, 1]
    target_noise: NonNegative = 0.2  # standard deviation of the noise on the target policy's action
    target_noise_limit: NonNegative = 0.5  # c: that noise is clipped to [-c, c]
    overlap: bool = False  # on host environments: learn in a thread while the next steps are taken, an update late
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = (256, 256)  # of the policy and of each critic
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "relu"  # after each hidden layer
    initial_weights: Literal["normal", "uniform"] = "normal"  # of variance 1 / fan-in, or within 1 / sqrt(fan-in)
    network: nn.Module | None = None  # (encoded observation, then for critics the action) -> features

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if the action space is not a Box, or the delay does not divide an iteration's updates."""
        updates = self.num_steps * spec.num_envs * self.updates_per_step
        if updates % self.policy_delay:
            raise BadInput(
                f"policy_delay {self.policy_delay} does not divide the {updates} updates of an iteration "
                f"(num_steps x {spec.num_envs} environments x updates_per_step)"
            )
        policy_key, critic_key = jax.random.split(key)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation, self.initial_weights)
        policy = create_deterministic_policy(policy_key, spec, encoder, torso, self.initial_weights)
        one = example(spec)
        module = Critics(tuple(torso.clone() for _ in range(self.num_critics)), self.initial_weights)
        critics = Network.create(module, critic_key, encoder(one.observation), flat(one.action))
        progress = Progress.start()
        actor_rule, critic_rule = self.optimizers(progress)
        return Learner(
            policy,
            critics,
            jax.tree.map(jnp.copy, policy),  # copies: donated buffers must not be shared
            jax.tree.map(jnp.copy, critics),
            (actor_rule.init(policy), critic_rule.init(critics)),
            create_replay(spec, self.replay_size),
            encoder,
            progress,
        )

    def behavior(self, learner: Learner) -> DeterministicBehavior:
        """The policy, and how far training is: the first actions are random, and noise may fade."""
        return DeterministicBehavior(learner.policy, learner.encoder, learner.progress)

    def initial_memory(self, spec: Spec) -> Tree:
        """What the noise remembers."""
        return self.noise.initial_memory(spec)

    def act(self, behavior: DeterministicBehavior, memory: Tree, observation: Tree, key: Key, explore: bool) -> tuple:
        """mu(o) with noise, clipped (uniform at first); mu(o) where not exploring."""
        return act_with_noise(behavior, self.noise, self.learning_starts, memory, observation, key, explore)

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """Store the trajectory, then `updates_per_step` gradient steps for each of its steps."""
        learner = remember(learner, trajectory, self.discount)
        num_updates = trajectory.reward.size * self.updates_per_step // self.policy_delay
        ready = learner.progress.steps >= jnp.maximum(self.learning_starts, 1)
        return improve(learner, self.gradient_step, key, num_updates, ready)

    def gradient_step(self, learner: Learner, replay: Replay, key: Key) -> tuple[Learner, Metrics]:
        """d steps of the critics, then one of the policy and of the targets."""

        def critics_step(learner: Learner, key: Key) -> tuple[Learner, tuple[Experience, Metrics]]:
            sample_key, noise_key = jax.random.split(key)
            batch = replay.sample(sample_key, self.minibatch_size)
            learner, metrics = self.update_critics(learner, batch, noise_key)
            return learner, (batch, metrics)

        learner, (batches, metrics) = jax.lax.scan(critics_step, learner, jax.random.split(key, self.policy_delay))
        learner, policy_metrics = self.update_policy(learner, jax.tree.map(lambda x: x[-1], batches))
        return learner, {name: metric.mean() for name, metric in metrics.items()} | policy_metrics

    def update_critics(self, learner: Learner, batch: Experience, key: Key) -> tuple[Learner, Metrics]:
        """One gradient step of the critics."""
        observation, next_observation = learner.encoder(batch.observation), learner.encoder(batch.next_observation)
        next_action = self.smoothed_action(learner, next_observation, key)
        next_q = learner.target_critics(next_observation, flat(next_action)).min(-1)
        target = batch.reward + batch.discount * next_q

        def loss(critics: Network) -> tuple[Array, Array]:
            q = critics(observation, flat(batch.action))
            return ((q - target[:, None]) ** 2).sum(-1).mean(), q.mean()

        (value_loss, q_mean), grads = jax.value_and_grad(loss, has_aux=True)(learner.critics)
        policy_state, critics_state = learner.optimizers
        updates, critics_state = self.optimizers(learner.progress)[1].update(grads, critics_state)
        critics = optax.apply_updates(learner.critics, updates)
        learner = learner._replace(critics=critics, optimizers=(policy_state, critics_state))
        return learner, {"loss/value": value_loss, "value/mean": q_mean}

    def smoothed_action(self, learner: Learner, next_observation: Tree, key: Key) -> Float[Array, "B *a"]:
        """clip(mu_theta_target(o') + clip(noise', -c, c)): actions alike should have values alike."""
        action = learner.target_policy(next_observation)
        limit = self.target_noise_limit
        noise = jnp.clip(self.target_noise * jax.random.normal(key, action.shape), -limit, limit)
        return jnp.clip(action + noise, -1.0, 1.0)

    def update_policy(self, learner: Learner, batch: Experience) -> tuple[Learner, Metrics]:
        """One gradient step of the policy on the first critic, and the targets' step after it."""
        observation, critic = learner.encoder(batch.observation), first_critic(learner.critics)

        def loss(policy: Network) -> Array:
            return -critic(observation, flat(policy(observation))).mean()

        policy_loss, grads = jax.value_and_grad(loss)(learner.policy)
        policy_state, critics_state = learner.optimizers
        updates, policy_state = self.optimizers(learner.progress)[0].update(grads, policy_state)
        policy = optax.apply_updates(learner.policy, updates)
        return learner._replace(
            policy=policy,
            target_policy=polyak(learner.target_policy, policy, self.tau),
            target_critics=polyak(learner.target_critics, learner.critics, self.tau),
            optimizers=(policy_state, critics_state),
        ), {"loss/policy": policy_loss}

    def greedy_value(self, learner: Learner, observation: Tree) -> Float[Array, "B"]:
        """Q_1(o, mu(o)), of encoded observations: what the policy climbs."""
        return first_critic(learner.critics)(observation, flat(learner.policy(observation)))[:, 0]

    def optimizers(self, progress: Progress) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """Adam for the policy and for the critics."""
        return optax.adam(at(self.learning_rate, progress)), optax.adam(at(self.critic_learning_rate, progress))
