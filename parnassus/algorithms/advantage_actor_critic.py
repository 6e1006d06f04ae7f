"""Advantage actor-critic with two critics, Q_w - V_v (Sutton, McAllester, Singh & Mansour 2000, section 3).

    initialise the policy pi_theta and the critics V_v and Q_w
    repeat, for one step in each of N environments                                      (the collector)
        draw a' ~ pi_theta(. | o')
        delta_v <- r + gamma V_v(o') - V_v(o),          with V_v(o') = 0 if o' is terminal
        delta_w <- r + gamma Q_w(o', a') - Q_w(o, a),   with Q_w(o', a') = 0 if o' is terminal      (SARSA)
        A       <- Q_w(o, a) - V_v(o)
        theta   <- theta + alpha mean[A grad log pi_theta(a | o) + c grad H(pi_theta(. | o))]
        v       <- v + beta mean[delta_v grad V_v(o)]
        w       <- w + beta mean[delta_w grad Q_w(o, a)]

How much better than average is the action? The baseline V_v takes nothing from the expectation of the Q actor-critic's
gradient (Sutton & Barto 2018, section 13.4) and much of its variance. The TD actor-critic estimates the same advantage
by r + gamma V_v(o') - V_v(o), with one critic; A2C and A3C by n of those steps. The factor gamma^t is left out; steps
are Adam's. With real actions it is a teaching example: Q_w knows little beyond the actions that were taken, and can
lead the mean of a Gaussian policy astray.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array

from parnassus.actor_critic import Behavior, act, create_action_value, create_policy, create_value
from parnassus.encoding import Encoder
from parnassus.networks import Network, Torso
from parnassus.schedules import Linear, Progress, at
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Learner(NamedTuple):
    policy: Network  # theta
    value: Network  # v
    action_value: Network  # w
    optimizers: tuple[optax.OptState, optax.OptState]  # of the policy, of the critics
    encoder: Encoder
    progress: Progress


@pytree
class AdvantageActorCritic:
    """One step of the policy and of its critics V and Q for each step in the environments."""

    learning_rate: NonNegative | Linear = 3e-4  # alpha, Adam's step size for the policy
    critic_learning_rate: NonNegative | Linear = 1e-3  # beta, Adam's step size for the critics
    num_steps: Count = 1  # T: steps in each environment per update
    discount: Fraction = 0.99  # gamma, of future rewards
    entropy_coefficient: NonNegative = 0.0  # c, of the entropy bonus
    initial_log_std: float = 0.0  # of a Gaussian policy, whose actions live in [-1, 1]
    learned_std: bool = True  # of a Gaussian policy; False: it stays as it is
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = (64, 64)  # of each network; () makes policy and critics linear
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "tanh"  # after each hidden layer
    network: nn.Module | None = None  # (encoded observation, then for a critic of real actions those) -> features

    default_num_envs: ClassVar[int] = 8

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for spaces without a policy or an action value here."""
        policy_key, value_key, critic_key = jax.random.split(key, 3)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation)
        policy = create_policy(policy_key, spec, encoder, torso, self.initial_log_std, self.learned_std)
        value = create_value(value_key, spec, encoder, torso)
        action_value = create_action_value(critic_key, spec, encoder, torso)
        progress = Progress.start()
        actor, critic = self.optimizers(progress)
        states = actor.init(policy), critic.init((value, action_value))
        return Learner(policy, value, action_value, states, encoder, progress)

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
        """One step of the policy and of the critics."""
        observation, next_observation = map(learner.encoder, (trajectory.observation, trajectory.next_observation))
        next_action = learner.policy(next_observation).sample(key)
        bootstrap = jnp.stack([learner.value(next_observation), learner.action_value(next_observation, next_action)])
        terminated, reward = trajectory.terminated[None], trajectory.reward[None]
        target = reward + self.discount * jnp.where(terminated, 0.0, bootstrap)  # [2, T, N]: for V_v, for Q_w

        def value_loss(critics: tuple[Network, Network]) -> tuple[Array, Array]:
            value, action_value = critics
            v, q = value(observation), action_value(observation, trajectory.action)
            return 0.5 * ((target - jnp.stack([v, q])) ** 2).sum(0).mean(), q - v

        critics = learner.value, learner.action_value
        (critic_loss, advantage), critic_grads = jax.value_and_grad(value_loss, has_aux=True)(critics)

        def policy_loss(policy: Network) -> tuple[Array, tuple[Array, Array]]:
            distribution = policy(observation)
            loss = -(advantage * distribution.log_prob(trajectory.action)).mean()
            entropy = distribution.entropy().mean()
            return loss - self.entropy_coefficient * entropy, (loss, entropy)

        grads, (actor_loss, entropy) = jax.grad(policy_loss, has_aux=True)(learner.policy)
        actor, critic = self.optimizers(learner.progress)
        step, actor_state = actor.update(grads, learner.optimizers[0])
        critic_step, critic_state = critic.update(critic_grads, learner.optimizers[1])
        value, action_value = optax.apply_updates(critics, critic_step)
        return Learner(
            optax.apply_updates(learner.policy, step),
            value,
            action_value,
            (actor_state, critic_state),
            learner.encoder.update(trajectory.observation),
            learner.progress.advance(trajectory.reward),
        ), {"loss/policy": actor_loss, "loss/value": critic_loss, "policy/entropy": entropy}

    def optimizers(self, progress: Progress) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """Adam for the policy and for both critics, all parameters of each in one vector."""
        rates = at(self.learning_rate, progress), at(self.critic_learning_rate, progress)
        return optax.flatten(optax.adam(rates[0])), optax.flatten(optax.adam(rates[1]))
