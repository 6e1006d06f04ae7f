"""Q actor-critic: the policy gradient with a learned action value (Sutton, McAllester, Singh & Mansour 2000).

    initialise the policy pi_theta and the critic Q_w
    repeat, for one step in each of N environments                                      (the collector)
        draw a' ~ pi_theta(. | o')
        delta <- r + gamma Q_w(o', a') - Q_w(o, a), with Q_w(o', a') = 0 if o' is terminal      (SARSA)
        theta <- theta + alpha mean[Q_w(o, a) grad log pi_theta(a | o) + c grad H(pi_theta(. | o))]
        w     <- w + beta mean[delta grad Q_w(o, a)]

The gradient is that of the true action value where Q_w is it, or where its features are compatible with the policy's
(theorem 2 of the paper); else it is biased. Nothing is subtracted from Q_w, so of all actor-critics this one has the
noisiest gradient. a' is drawn here and not waited for: it has the distribution of the action that will be taken, and
there is one even where a time limit ends the episode. The factor gamma^t is left out; steps are Adam's.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array

from parnassus.actor_critic import Behavior, act, create_action_value, create_policy
from parnassus.encoding import Encoder
from parnassus.networks import Network, Torso
from parnassus.schedules import Linear, Progress, at
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Learner(NamedTuple):
    policy: Network  # theta
    critic: Network  # w
    optimizers: tuple[optax.OptState, optax.OptState]  # of the policy, of the critic
    encoder: Encoder
    progress: Progress


@pytree
class QActorCritic:
    """One step of the policy and of its critic Q for each step in the environments."""

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
    network: nn.Module | None = None  # (encoded observation, then for a critic of real actions those) -> features

    default_num_envs: ClassVar[int] = 8

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for spaces without a policy or an action value here."""
        policy_key, critic_key = jax.random.split(key)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation)
        policy = create_policy(policy_key, spec, encoder, torso, self.initial_log_std, self.learned_std)
        critic = create_action_value(critic_key, spec, encoder, torso)
        progress = Progress.start()
        actor_rule, critic_rule = self.optimizers(progress)
        states = actor_rule.init(policy), critic_rule.init(critic)
        return Learner(policy, critic, states, encoder, progress)

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
        observation, next_observation = map(learner.encoder, (trajectory.observation, trajectory.next_observation))
        next_action = learner.policy(next_observation).sample(key)
        next_q = learner.critic(next_observation, next_action)
        target = trajectory.reward + self.discount * jnp.where(trajectory.terminated, 0.0, next_q)

        def value_loss(critic: Network) -> tuple[Array, Array]:
            q = critic(observation, trajectory.action)
            return 0.5 * ((target - q) ** 2).mean(), q

        (critic_loss, q), critic_grads = jax.value_and_grad(value_loss, has_aux=True)(learner.critic)

        def policy_loss(policy: Network) -> tuple[Array, tuple[Array, Array]]:
            distribution = policy(observation)
            loss = -(q * distribution.log_prob(trajectory.action)).mean()
            entropy = distribution.entropy().mean()
            return loss - self.entropy_coefficient * entropy, (loss, entropy)

        grads, (actor_loss, entropy) = jax.grad(policy_loss, has_aux=True)(learner.policy)
        actor_rule, critic_rule = self.optimizers(learner.progress)
        step, actor_state = actor_rule.update(grads, learner.optimizers[0])
        critic_step, critic_state = critic_rule.update(critic_grads, learner.optimizers[1])
        return Learner(
            optax.apply_updates(learner.policy, step),
            optax.apply_updates(learner.critic, critic_step),
            (actor_state, critic_state),
            learner.encoder.update(trajectory.observation),
            learner.progress.advance(trajectory.reward),
        ), {"loss/policy": actor_loss, "loss/value": critic_loss, "policy/entropy": entropy}

    def optimizers(self, progress: Progress) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """Adam for the policy and for the critic, all parameters of each in one vector."""
        rates = at(self.learning_rate, progress), at(self.critic_learning_rate, progress)
        return optax.flatten(optax.adam(rates[0])), optax.flatten(optax.adam(rates[1]))
