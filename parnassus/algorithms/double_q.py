"""Double Q-learning with actors: the DQ-AC that the TD3 paper measures (van Hasselt 2010; Fujimoto et al. 2018).

    initialise two policies mu_1, mu_2, two critics Q_1, Q_2, their targets, a replay D
    repeat
        act with a = clip(mu_1(o) + noise, low, high) for T steps in each of N environments,
        at random at first; store them in D                                              (the collector, `remember`)
        for each gradient step, with a minibatch (o, a, r, o') from D:
            y_1 <- r + gamma (1 - terminated) Q_2_target(o', mu_1(o'))
            y_2 <- r + gamma (1 - terminated) Q_1_target(o', mu_2(o'))
            descend  E[(Q_1(o, a) - y_1)^2 + (Q_2(o, a) - y_2)^2]
            ascend   E[Q_1(o, mu_1(o)) + Q_2(o, mu_2(o))]
            Q_i_target <- Q_i_target + tau (Q_i - Q_i_target)

The action that one critic's policy chooses is valued by the other critic, so that the errors that attract the policy
are not those that judge it; as far as the two critics, which learn from one replay, have errors of their own. It stands
between DDPG, which overestimates, and TD3, which takes the smaller of two values.
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

Two = tuple[Network, Network]


class Learner(NamedTuple):
    policies: Two  # mu_1, mu_2
    critics: Two  # Q_1, Q_2
    target_critics: Two
    optimizers: tuple[optax.OptState, optax.OptState]  # of the policies and of the critics
    replay: Replay  # D
    encoder: Encoder
    progress: Progress


@pytree
class DoubleQ:
    """The double Q-learning actor-critic; actions in a Box."""

    learning_rate: NonNegative | Linear = 1e-3  # Adam's step size for the policies
    critic_learning_rate: NonNegative | Linear = 1e-3  # Adam's step size for the critics
    num_steps: Count = 1  # T: steps in each environment per iteration
    updates_per_step: Count = 1  # gradient steps per environment step
    minibatch_size: Count = 256  # transitions per gradient step
    replay_size: Count = 1_000_000  # transitions that are kept
    learning_starts: WholeNumber = 1_000  # environment steps with uniformly random actions, before the first update
    discount: Fraction = 0.99  # gamma, of future rewards
    tau: Fraction = 0.005  # the target critics' step towards the critics
    noise: GaussianNoise | OrnsteinUhlenbeck = GaussianNoise()  # added to the policy's action, which is in [-1, 1]
    overlap: bool = False  # on host environments: learn in a thread while the next steps are taken, an update late
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = (256, 256)  # of each network
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "relu"  # after each hidden layer
    initial_weights: Literal["normal", "uniform"] = "normal"  # of variance 1 / fan-in, or within 1 / sqrt(fan-in)
    network: nn.Module | None = None  # (encoded observation, then for critics the action) -> features

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if the action space is not a Box."""
        keys = jax.random.split(key, 4)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation, self.initial_weights)
        policies = (
            create_deterministic_policy(keys[0], spec, encoder, torso, self.initial_weights),
            create_deterministic_policy(keys[1], spec, encoder, torso, self.initial_weights),
        )
        critics = (
            create_action_value(keys[2], spec, encoder, torso, self.initial_weights),
            create_action_value(keys[3], spec, encoder, torso, self.initial_weights),
        )
        progress = Progress.start()
        actor_rule, critic_rule = self.optimizers(progress)
        target = jax.tree.map(jnp.copy, critics)  # a copy: donated buffers must not be shared
        states = actor_rule.init(policies), critic_rule.init(critics)
        return Learner(policies, critics, target, states, create_replay(spec, self.replay_size), encoder, progress)

    def behavior(self, learner: Learner) -> DeterministicBehavior:
        """The first policy, and how far training is: the first actions are random, and noise may fade."""
        return DeterministicBehavior(learner.policies[0], learner.encoder, learner.progress)

    def initial_memory(self, spec: Spec) -> Tree:
        """What the noise remembers."""
        return self.noise.initial_memory(spec)

    def act(self, behavior: DeterministicBehavior, memory: Tree, observation: Tree, key: Key, explore: bool) -> tuple:
        """mu_1(o) with noise, clipped (uniform at first); mu_1(o) where not exploring."""
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
        """One gradient step of the critics and of the policies, and the targets' after them."""
        observation, next_observation = learner.encoder(batch.observation), learner.encoder(batch.next_observation)
        actor_rule, critic_rule = self.optimizers(learner.progress)
        policy_state, critic_state = learner.optimizers

        crosswise = zip(learner.policies, reversed(learner.target_critics), strict=True)
        targets = [
            batch.reward + batch.discount * critic(next_observation, policy(next_observation))
            for policy, critic in crosswise
        ]

        def critic_loss(critics: Two) -> tuple[Array, Array]:
            q = jnp.stack([critic(observation, batch.action) for critic in critics])
            return ((q - jnp.stack(targets)) ** 2).sum(0).mean(), q.mean()

        (value_loss, q_mean), grads = jax.value_and_grad(critic_loss, has_aux=True)(learner.critics)
        updates, critic_state = critic_rule.update(grads, critic_state)
        critics = optax.apply_updates(learner.critics, updates)

        def policy_loss(policies: Two) -> Array:
            each = zip(critics, policies, strict=True)
            return -jnp.stack([critic(observation, policy(observation)) for critic, policy in each]).sum(0).mean()

        loss, grads = jax.value_and_grad(policy_loss)(learner.policies)
        updates, policy_state = actor_rule.update(grads, policy_state)
        return learner._replace(
            policies=optax.apply_updates(learner.policies, updates),
            critics=critics,
            target_critics=polyak(learner.target_critics, critics, self.tau),
            optimizers=(policy_state, critic_state),
        ), {"loss/policy": loss, "loss/value": value_loss, "value/mean": q_mean}

    def greedy_value(self, learner: Learner, observation: Tree) -> Float[Array, "B"]:
        """Q_1(o, mu_1(o)), of encoded observations."""
        return learner.critics[0](observation, learner.policies[0](observation))

    def optimizers(self, progress: Progress) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """Adam for the policies and for the critics."""
        return optax.adam(at(self.learning_rate, progress)), optax.adam(at(self.critic_learning_rate, progress))
