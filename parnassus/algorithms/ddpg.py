"""Deep deterministic policy gradient (Lillicrap et al. 2016, arXiv 1509.02971, Algorithm 1).

    initialise the policy mu_theta, the critic Q_phi, their targets theta_target = theta, phi_target = phi, a replay D
    repeat
        act with a = clip(mu_theta(o) + noise, low, high) for T steps in each of N environments,
        at random at first; store them in D                                              (the collector, `remember`)
        for each gradient step, with a minibatch (o, a, r, o') from D:
            y <- r + gamma (1 - terminated) Q_phi_target(o', mu_theta_target(o'))
            descend  E[(Q_phi(o, a) - y)^2]
            ascend   E[Q_phi(o, mu_theta(o))]
            phi_target   <- phi_target + tau (phi - phi_target)
            theta_target <- theta_target + tau (theta - theta_target)

The policy's gradient is that of Silver et al. 2014 (equation 9), E[grad_theta mu_theta(o) grad_a Q_phi(o, a)], by the
chain rule. The paper lays batch normalisation and weight decay on top; like later work, this does without. With
`double` it is the Double-DQN-style actor-critic that the TD3 paper measures (section 4.2): y values mu_theta(o').
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from parnassus.actor_critic import create_action_value
from parnassus.encoding import Encoder
from parnassus.exploration import GaussianNoise, OrnsteinUhlenbeck
from parnassus.networks import Network, Torso, polyak
from parnassus.off_policy import (
    DeterministicBehavior,
    Experience,
    act_with_noise,
    create_deterministic_policy,
    create_replay,
    improve,
    remember,
)
from parnassus.replay import Replay
from parnassus.schedules import Linear, Progress, at
from parnassus.types import (
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
    critic: Network  # phi
    target_policy: Network
    target_critic: Network
    optimizers: tuple[optax.OptState, optax.OptState]  # of the policy and of the critic
    replay: Replay  # D
    encoder: Encoder
    progress: Progress


@pytree
class DDPG:
    """DDPG with one critic; actions in a Box."""

    learning_rate: NonNegative | Linear = 1e-3  # Adam's step size for the policy
    critic_learning_rate: NonNegative | Linear = 1e-3  # Adam's step size for the critic
    num_steps: Count = 1  # T: steps in each environment per iteration
    updates_per_step: Count = 1  # gradient steps per environment step
    minibatch_size: Count = 256  # transitions per gradient step
    replay_size: Count = 1_000_000  # transitions that are kept
    learning_starts: WholeNumber = 1_000  # environment steps with uniformly random actions, before the first update
    discount: Fraction = 0.99  # gamma, of future rewards
    tau: Fraction = 0.005  # the targets' step towards what they follow
    double: bool = False  # the policy itself chooses the action that the target critic values (DDQN-AC)
    noise: GaussianNoise | OrnsteinUhlenbeck = GaussianNoise()  # added to the policy's action, which is in [-1, 1]
    overlap: bool = False  # on host environments: learn in a thread while the next steps are taken, an update late
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = (256, 256)  # of the policy and of the critic
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "relu"  # after each hidden layer
    initial_weights: Literal["normal", "uniform"] = "normal"  # of variance 1 / fan-in, or within 1 / sqrt(fan-in)
    network: nn.Module | None = None  # (encoded observation, then for critics the action) -> features

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if the action space is not a Box."""
        policy_key, critic_key = jax.random.split(key)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation, self.initial_weights)
        policy = create_deterministic_policy(policy_key, spec, encoder, torso, self.initial_weights)
        critic = create_action_value(critic_key, spec, encoder, torso.clone(), self.initial_weights)
        progress = Progress.start()
        actor_rule, critic_rule = self.optimizers(progress)
        return Learner(
            policy,
            critic,
            jax.tree.map(jnp.copy, policy),  # copies: donated buffers must not be shared
            jax.tree.map(jnp.copy, critic),
            (actor_rule.init(policy), critic_rule.init(critic)),
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
        ready = learner.progress.steps >= jnp.maximum(self.learning_starts, 1)
        return improve(learner, self.gradient_step, key, trajectory.reward.size * self.updates_per_step, ready)

    def gradient_step(self, learner: Learner, replay: Replay, key: Key) -> tuple[Learner, Metrics]:
        """One gradient step on a fresh minibatch."""
        return self.update(learner, replay.sample(key, self.minibatch_size))

    def update(self, learner: Learner, batch: Experience) -> tuple[Learner, Metrics]:
        """One gradient step of the critic and of the policy, and the targets' after them."""
        observation, next_observation = learner.encoder(batch.observation), learner.encoder(batch.next_observation)
        actor_rule, critic_rule = self.optimizers(learner.progress)
        policy_state, critic_state = learner.optimizers

        chooser = learner.policy if self.double else learner.target_policy
        next_q = learner.target_critic(next_observation, chooser(next_observation))
        target = batch.reward + batch.discount * next_q

        def critic_loss(critic: Network) -> tuple[Array, Array]:
            q = critic(observation, batch.action)
            return ((q - target) ** 2).mean(), q.mean()

        (value_loss, q_mean), grads = jax.value_and_grad(critic_loss, has_aux=True)(learner.critic)
        updates, critic_state = critic_rule.update(grads, critic_state)
        critic = optax.apply_updates(learner.critic, updates)

        def policy_loss(policy: Network) -> Array:
            return -critic(observation, policy(observation)).mean()

        loss, grads = jax.value_and_grad(policy_loss)(learner.policy)
        updates, policy_state = actor_rule.update(grads, policy_state)
        policy = optax.apply_updates(learner.policy, updates)

        return learner._replace(
            policy=policy,
            critic=critic,
            target_policy=polyak(learner.target_policy, policy, self.tau),
            target_critic=polyak(learner.target_critic, critic, self.tau),
            optimizers=(policy_state, critic_state),
        ), {"loss/policy": loss, "loss/value": value_loss, "value/mean": q_mean}

    def greedy_value(self, learner: Learner, observation: Tree) -> Float[Array, "B"]:
        """Q(o, mu(o)), of encoded observations."""
        return learner.critic(observation, learner.policy(observation))

    def optimizers(self, progress: Progress) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """Adam for the policy and for the critic."""
        return optax.adam(at(self.learning_rate, progress)), optax.adam(at(self.critic_learning_rate, progress))
