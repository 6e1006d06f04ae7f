"""Advantage actor-critic: the synchronous form of A3C (Mnih et al. 2016, arXiv 1602.01783, Algorithm S3).

    initialise the policy pi_theta and the value function V_phi
    repeat
        run pi_theta for n steps in each of N environments at once                      (the collector)
        for each environment, from the last step of the segment back to the first:
            R <- 0 if o_{t+1} is terminal; V_phi(o_{t+1}) if the segment or a time limit ends here; else R
            R <- r_{t+1} + gamma R                                                      the n-k step return of step k
            d theta <- d theta + grad log pi_theta(a_t | o_t) (R - V_phi(o_t)) + beta grad H(pi_theta(. | o_t))
            d phi   <- d phi   - c grad (R - V_phi(o_t))^2
        move theta along d theta and phi along d phi by RMSProp

A2C waits for all its actors and takes one step with the mean of their gradients, where each actor of A3C takes a step
of its own when it likes. The paper sums over the segment; the mean over its n * N steps differs by a factor that
RMSProp removes, and keeps learning rates and gradient clipping apart from n and N. With gae_lambda below 1 the
advantage R - V_phi(o_t) becomes the generalised advantage estimate, which weighs all shorter returns. With a
temperature alpha > 0 the rewards are r - alpha log pi_theta(a | o): the maximum-entropy objective, see `soft_rewards`.
"""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import optax
from flax import linen as nn
from jaxtyping import Array

from parnassus.actor_critic import (
    Behavior,
    SeparateNetworks,
    SharedNetworks,
    act,
    create_networks,
    explained_variance,
    scale_rewards,
    soft_rewards,
)
from parnassus.encoding import Encoder
from parnassus.networks import Network, Torso
from parnassus.normalization import RewardScaler
from parnassus.returns import generalized_advantages
from parnassus.schedules import Linear, Progress, at
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree

Networks = SeparateNetworks | SharedNetworks
Heads = Any  # a pytree that, called with encoded observations, gives pi(. | o) and V(o); its gradient is one too


class Learner(NamedTuple):
    networks: Networks  # theta, phi
    optimizer: optax.OptState
    encoder: Encoder
    rewards: RewardScaler | None
    progress: Progress

    @property
    def value(self) -> Network:
        """V_phi."""
        return self.networks.value


@pytree
class A2C:
    """Synchronous advantage actor-critic, with the defaults of Stable-Baselines3."""

    learning_rate: NonNegative | Linear = 7e-4  # of RMSProp or Adam
    num_steps: Count = 5  # n (t_max): steps in each environment per update
    discount: Fraction = 0.99  # gamma, of future rewards
    gae_lambda: Fraction = 1.0  # 1: n-step returns as in the paper; less: the generalised advantage estimator
    entropy_coefficient: NonNegative = 0.0  # beta, of the entropy bonus
    temperature: NonNegative | Linear = 0.0  # alpha, of the entropy inside the return
    value_coefficient: NonNegative = 0.5  # c, of the value loss
    max_grad_norm: NonNegative = 0.5  # the global norm that gradients are clipped to
    initial_log_std: float = 0.0  # of a Gaussian policy, whose actions live in [-1, 1]
    learned_std: bool = True  # of a Gaussian policy; False: it stays as it is
    normalize_advantages: bool = False  # to mean 0 and variance 1 in each update
    normalize_observations: bool = False  # by running statistics, frozen within an iteration
    normalize_rewards: bool = False  # by the running standard deviation of the discounted return
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"  # RMSProp as in the paper, or Adam
    optimizer_epsilon: NonNegative = 1e-5  # RMSProp: under the root, as TensorFlow has it; Adam: beside it
    shared_network: bool = False  # one network with two heads, as in the paper, or two networks
    hidden_sizes: tuple[int, ...] = (64, 64)  # of the networks; () is a linear policy and a linear value function
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "tanh"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features, in place of the default network

    default_num_envs: ClassVar[int] = 8

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for spaces without a policy here."""
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation)
        networks = create_networks(
            key, spec, encoder, torso, self.initial_log_std, self.learned_std, self.shared_network
        )
        rewards = RewardScaler.zeros(spec.num_envs) if self.normalize_rewards else None
        progress = Progress.start()
        return Learner(networks, self.transformation(progress).init(networks), encoder, rewards, progress)

    def behavior(self, learner: Learner) -> Behavior:
        """The policy and the statistics it reads observations with."""
        return Behavior(learner.networks.policy, learner.encoder)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Tree, key: Key, explore: bool) -> tuple:
        """A draw from the policy, or its mode."""
        action, extras = act(behavior, observation, key, explore)
        return action, memory, extras

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """One step along the mean gradient of the N segments."""
        trajectory = soft_rewards(trajectory, at(self.temperature, learner.progress))
        reward, rewards = scale_rewards(learner, trajectory, self.discount)
        segment = trajectory._replace(reward=reward)
        grads, metrics = self.segment_gradient(learner.networks, learner.encoder, segment)
        updates, optimizer_state = self.transformation(learner.progress).update(grads, learner.optimizer)
        return Learner(
            optax.apply_updates(learner.networks, updates),
            optimizer_state,
            learner.encoder.update(trajectory.observation),
            rewards,
            learner.progress.advance(reward),
        ), metrics

    def segment_gradient(self, networks: Heads, encoder: Encoder, segment: Transition) -> tuple[Heads, Metrics]:
        """-(d theta, d phi) / (n * N), and metrics, of a segment [n, N, ...] whose rewards are as the learner sees
        them. Nothing else of the learner is read, so whoever holds a copy of the parameters can compute it."""
        _, next_value = networks(encoder(segment.next_observation))
        observation = encoder(segment.observation)

        def loss(networks: Heads) -> tuple[Array, Metrics]:
            distribution, value = networks(observation)
            # V(o_t) in advantage and target comes from this same pass; no gradient goes through it.
            baseline = jax.lax.stop_gradient(value)
            advantage = generalized_advantages(
                segment.reward,
                baseline,
                next_value,
                segment.terminated,
                segment.truncated,
                self.discount,
                self.gae_lambda,
            )
            target = advantage + baseline
            if self.normalize_advantages:
                advantage = jax.nn.standardize(advantage, axis=None)
            policy_loss = -(advantage * distribution.log_prob(segment.action)).mean()
            value_loss = ((target - value) ** 2).mean()
            entropy = distribution.entropy().mean()
            return policy_loss + self.value_coefficient * value_loss - self.entropy_coefficient * entropy, {
                "loss/policy": policy_loss,
                "loss/value": value_loss,
                "policy/entropy": entropy,
                "value/explained_variance": explained_variance(baseline, target),
            }

        return jax.grad(loss, has_aux=True)(networks)

    def transformation(self, progress: Progress) -> optax.GradientTransformation:
        """RMSProp or Adam on globally clipped gradients, all parameters in one vector."""
        learning_rate = at(self.learning_rate, progress)
        match self.optimizer:
            case "adam":
                step = optax.adam(learning_rate, eps=self.optimizer_epsilon)
            case "rmsprop":  # statistics start at 1: the first steps are small instead of large
                step = optax.rmsprop(learning_rate, decay=0.99, eps=self.optimizer_epsilon, initial_scale=1.0)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(self.max_grad_norm), step))
