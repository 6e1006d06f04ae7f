"""Deterministic policy gradient with a compatible critic, off-policy (Silver et al. 2014, section 4.3: COPDAC-Q).

    initialise the policy mu_theta, the critic's w (as many numbers as theta) and v
    repeat, for T steps in each of N environments, with a = clip(mu_theta(o) + noise)       (the collector)
        Q(o, a) = (a - mu_theta(o)) . (grad_theta mu_theta(o)^T w) + V_v(o),  so that Q(o', mu_theta(o')) = V_v(o')
        delta <- r + gamma V_v(o') - Q(o, a), with V_v(o') = 0 if o' is terminal
        theta <- theta + alpha mean[grad_theta mu_theta(o) (grad_theta mu_theta(o)^T w)]
        w     <- w + beta mean[delta grad_theta mu_theta(o) (a - mu_theta(o))]
        v     <- v + beta mean[delta grad V_v(o)]

Theorem 3 of the paper: with such a critic, fitted, grad_a Q may take the true action value's place in the gradient
E[grad_theta mu_theta(o) grad_a Q(o, a)], and no bias comes of it. In the critic w weighs features that are the policy's
own gradients: grad_theta mu^T w is the derivative of mu along w. DDPG puts any network in its place, and a replay.
Steps are Adam's.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from parnassus.actor_critic import create_value
from parnassus.encoding import Encoder
from parnassus.exploration import GaussianNoise, OrnsteinUhlenbeck
from parnassus.networks import Network, Torso
from parnassus.off_policy import DeterministicBehavior, act_with_noise, create_deterministic_policy
from parnassus.schedules import Linear, Progress, at
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Learner(NamedTuple):
    policy: Network  # theta
    advantage: Network  # w: of theta's shape
    value: Network  # v
    optimizers: tuple[optax.OptState, optax.OptState]  # of the policy, of the critic
    encoder: Encoder
    progress: Progress


@pytree
class DPG:
    """The deterministic actor-critic with compatible features; actions in a Box."""

    learning_rate: NonNegative | Linear = 3e-4  # alpha, Adam's step size for the policy
    critic_learning_rate: NonNegative | Linear = 1e-3  # beta, Adam's step size for the critic
    num_steps: Count = 1  # T: steps in each environment per update
    discount: Fraction = 0.99  # gamma, of future rewards
    noise: GaussianNoise | OrnsteinUhlenbeck = GaussianNoise(0.3)  # added to the policy's action, which is in [-1, 1]
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = ()  # of policy and value; () makes both linear in the observation, but for tanh
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "tanh"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features, in place of the default network

    default_num_envs: ClassVar[int] = 8

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if the action space is not a Box."""
        policy_key, value_key = jax.random.split(key)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation)
        policy = create_deterministic_policy(policy_key, spec, encoder, torso)
        advantage = jax.tree.map(jnp.zeros_like, policy)
        value = create_value(value_key, spec, encoder, torso)
        progress = Progress.start()
        actor, critic = self.optimizers(progress)
        states = actor.init(policy), critic.init((advantage, value))
        return Learner(policy, advantage, value, states, encoder, progress)

    def behavior(self, learner: Learner) -> DeterministicBehavior:
        """The policy, and how far training is: noise may fade."""
        return DeterministicBehavior(learner.policy, learner.encoder, learner.progress)

    def initial_memory(self, spec: Spec) -> Tree:
        """What the noise remembers."""
        return self.noise.initial_memory(spec)

    def act(self, behavior: DeterministicBehavior, memory: Tree, observation: Tree, key: Key, explore: bool) -> tuple:
        """mu(o) with noise, clipped; mu(o) where not exploring."""
        return act_with_noise(behavior, self.noise, 0, memory, observation, key, explore)

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """One step of the policy and of its critic."""
        observation = learner.encoder(trajectory.observation)
        next_value = learner.value(learner.encoder(trajectory.next_observation))
        target = trajectory.reward + self.discount * jnp.where(trajectory.terminated, 0.0, next_value)

        def value_loss(critic: tuple[Network, Network]) -> tuple[Array, Array]:
            q = self.action_value(learner.policy, critic, observation, trajectory.action)
            return 0.5 * ((target - q) ** 2).mean(), q.mean()

        critic = learner.advantage, learner.value
        (critic_loss, q_mean), critic_grads = jax.value_and_grad(value_loss, has_aux=True)(critic)
        _, slope = derivative(learner.policy, learner.advantage, observation)  # grad_a Q

        def policy_loss(policy: Network) -> Array:
            return -(policy(observation) * slope).sum(range(2, slope.ndim)).mean()

        grads = jax.grad(policy_loss)(learner.policy)
        actor_rule, critic_rule = self.optimizers(learner.progress)
        step, actor_state = actor_rule.update(grads, learner.optimizers[0])
        critic_step, critic_state = critic_rule.update(critic_grads, learner.optimizers[1])
        advantage, value = optax.apply_updates(critic, critic_step)
        return Learner(
            optax.apply_updates(learner.policy, step),
            advantage,
            value,
            (actor_state, critic_state),
            learner.encoder.update(trajectory.observation),
            learner.progress.advance(trajectory.reward),
        ), {"loss/value": critic_loss, "value/mean": q_mean}

    def action_value(
        self, policy: Network, critic: tuple[Network, Network], observation: Tree, action: Float[Array, "T N ..."]
    ) -> Float[Array, "T N"]:
        """Q(o, a), of encoded observations."""
        advantage, value = critic
        mean, slope = derivative(policy, advantage, observation)
        return ((action - mean) * slope).sum(range(2, action.ndim)) + value(observation)

    def optimizers(self, progress: Progress) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """Adam for the policy and for the critic, all parameters of each in one vector."""
        rates = at(self.learning_rate, progress), at(self.critic_learning_rate, progress)
        return optax.flatten(optax.adam(rates[0])), optax.flatten(optax.adam(rates[1]))


def derivative(policy: Network, direction: Network, observation: Tree) -> tuple[Array, Array]:
    """mu_theta(o), and its derivative along w: grad_theta mu_theta(o)^T w."""
    return jax.jvp(lambda policy: policy(observation), (policy,), (direction,))
