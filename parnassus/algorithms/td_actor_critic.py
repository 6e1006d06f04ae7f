"""TD actor-critic: the policy gradient with the one-step TD error delta (Sutton & Barto 2018, section 13.5).

    initialise the policy pi_theta and the critic V_w
    repeat, for one step in each of N environments                                      (the collector)
        delta <- r + gamma V_w(o') - V_w(o), with V_w(o') = 0 if o' is terminal
        theta <- theta + alpha mean[delta grad log pi_theta(a | o) + c grad H(pi_theta(. | o))]
        w     <- w + beta mean[delta grad V_w(o)]

Where V_w is the policy's value, delta is an unbiased estimate of the advantage: E[delta | o, a] = Q(o, a) - V(o). So
this one critic does what the advantage actor-critic keeps two for. As everywhere in practice the factor gamma^t of the
book's box is left out; steps are Adam's.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array

from parnassus.actor_critic import Behavior, act, create_policy, create_value
from parnassus.encoding import Encoder
from parnassus.networks import Network, Torso
from parnassus.schedules import Linear, Progress, at
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Learner(NamedTuple):
    policy: Network  # theta
    value: Network  # w
    optimizers: tuple[optax.OptState, optax.OptState]  # of the policy, of the critic
    encoder: Encoder
    progress: Progress


@pytree
class TDActorCritic:
    """One step of the policy and of its critic V for each step in the environments."""

    learning_rate: NonNegative | Linear = 3e-4  # alpha, Adam's step size for the policy
    critic_learning_rate: NonNegative | Linear = 1e-3  # beta, Adam's step size for the critic
    num_steps: Count = 1  # T: steps in each environment per update
    discount: Fraction = 0.99  # gamma, of future rewards
    entropy_coefficient: NonNegative = 0.0  # c, of the entropy bonus
    initial_log_std: float = 0.0  # of a Gaussian policy, whose actions live in [-1, 1]
    learned_std: bool = True  # of a Gaussian policy; False: it stays as it is
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = (64, 64)  # of both networks; () makes policy and critic linear
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "tanh"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features, in place of the default network

    default_num_envs: ClassVar[int] = 8

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for spaces without a policy here."""
        policy_key, value_key = jax.random.split(key)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation)
        policy = create_policy(policy_key, spec, encoder, torso, self.initial_log_std, self.learned_std)
        value = create_value(value_key, spec, encoder, torso)
        progress = Progress.start()
        actor, critic = self.optimizers(progress)
        return Learner(policy, value, (actor.init(policy), critic.init(value)), encoder, progress)

    def behavior(self, learner: Learner) -> Behavior:
        """The policy and the statistics it reads observations with."""
        return Behavior(learner.policy, learner.encoder)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Tree, key: Key, explore: bool) -> tuple:
        """A draw from the policy, or its mode."""
        action, extras = act(behavior, observation, key, explore)
        return action, memory, extras

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """One step of the policy and of the critic."""
        observation = learner.encoder(trajectory.observation)
        next_value = learner.value(learner.encoder(trajectory.next_observation))
        target = trajectory.reward + self.discount * jnp.where(trajectory.terminated, 0.0, next_value)

        def value_loss(value: Network) -> tuple[Array, Array]:
            delta = target - value(observation)
            return 0.5 * (delta**2).mean(), delta

        (critic_loss, delta), value_grads = jax.value_and_grad(value_loss, has_aux=True)(learner.value)

        def policy_loss(policy: Network) -> tuple[Array, tuple[Array, Array]]:
            distribution = policy(observation)
            loss = -(delta * distribution.log_prob(trajectory.action)).mean()
            entropy = distribution.entropy().mean()
            return loss - self.entropy_coefficient * entropy, (loss, entropy)

        grads, (actor_loss, entropy) = jax.grad(policy_loss, has_aux=True)(learner.policy)
        actor, critic = self.optimizers(learner.progress)
        step, actor_state = actor.update(grads, learner.optimizers[0])
        value_step, critic_state = critic.update(value_grads, learner.optimizers[1])
        return Learner(
            optax.apply_updates(learner.policy, step),
            optax.apply_updates(learner.value, value_step),
            (actor_state, critic_state),
            learner.encoder.update(trajectory.observation),
            learner.progress.advance(trajectory.reward),
        ), {"loss/policy": actor_loss, "loss/value": critic_loss, "policy/entropy": entropy}

    def optimizers(self, progress: Progress) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """Adam for the policy and for the critic, all parameters of each in one vector."""
        rates = at(self.learning_rate, progress), at(self.critic_learning_rate, progress)
        return optax.flatten(optax.adam(rates[0])), optax.flatten(optax.adam(rates[1]))
