"""Proximal policy optimization with a clipped objective (Schulman et al. 2017, arXiv 1707.06347, Algorithm 1).

    initialise the policy pi_theta and the value function V_phi
    repeat
        run pi_theta for T steps in each of N environments                              (the collector)
        estimate advantages A_t with the generalised advantage estimator, targets A_t + V_phi(o_t)
        theta_old <- theta
        for K epochs, for each minibatch of the T * N transitions, shuffled:
            ratio <- pi_theta(a_t | o_t) / pi_theta_old(a_t | o_t)
            ascend  E[min(ratio A_t, clip(ratio, 1 - epsilon, 1 + epsilon) A_t)
                      - c1 (V_phi(o_t) - target_t)^2 + c2 H(pi_theta(. | o_t))]     (equations 7 and 9)

Time limits are bootstrapped with the value of the true successor.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from parnassus.actor_critic import (
    Batch,
    Behavior,
    act,
    create_policy,
    create_value,
    estimate,
    explained_variance,
    random_order,
    scale_rewards,
)
from parnassus.encoding import Encoder
from parnassus.networks import Network, Torso
from parnassus.normalization import RewardScaler
from parnassus.schedules import Linear, Progress, at
from parnassus.types import BadInput, Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


@pytree
class Clip:
    """L^CLIP, equation 7: no incentive to move the ratio outside [1 - clip_range, 1 + clip_range]."""

    clip_range: NonNegative | Linear = 0.2  # epsilon: how far from 1 the ratio is still rewarded

    def __call__(
        self, log_ratio: Float[Array, "B"], advantage: Float[Array, "B"], progress: Progress
    ) -> tuple[Float[Array, ""], Metrics]:
        """The objective to ascend, and metrics; ratio = pi_theta(a|o) / pi_theta_old(a|o).

        min(ratio A, clip(ratio) A) is A times min(ratio, 1 + epsilon) where A > 0, and A times max(ratio, 1 - epsilon)
        where A < 0; so written, its gradient is a single selection.
        """
        ratio, clip_range = jnp.exp(log_ratio), at(self.clip_range, progress)
        gains = advantage > 0
        limit = jnp.where(gains, 1.0 + clip_range, 1.0 - clip_range)
        objective = (jnp.where((ratio > limit) == gains, limit, ratio) * advantage).mean()
        return objective, {"policy/clip_fraction": (jnp.abs(ratio - 1.0) > clip_range).mean()}


class Learner(NamedTuple):
    policy: Network  # theta
    value: Network  # phi
    optimizer: optax.OptState
    encoder: Encoder
    rewards: RewardScaler | None
    progress: Progress


@pytree
class PPO:
    """Clipped PPO with the usual defaults (those of the paper's MuJoCo experiments and of Stable-Baselines3)."""

    learning_rate: NonNegative | Linear = 3e-4  # Adam's step size
    num_steps: Count = 2048  # T: steps in each environment per iteration
    num_epochs: Count = 10  # K: passes over the transitions of an iteration
    minibatch_size: Count = 64  # transitions per gradient step; must divide num_steps * num_envs
    discount: Fraction = 0.99  # gamma, of future rewards
    gae_lambda: Fraction = 0.95  # lambda of the generalised advantage estimator
    objective: Clip = Clip()
    entropy_coefficient: NonNegative = 0.0  # c2, of the entropy bonus
    value_coefficient: NonNegative = 0.5  # c1, of the value loss
    max_grad_norm: NonNegative = 0.5  # the global norm that gradients are clipped to
    initial_log_std: float = 0.0  # of a Gaussian policy, whose actions live in [-1, 1]
    learned_std: bool = True  # of a Gaussian policy; False: it stays as it is
    normalize_advantages: bool = True  # to mean 0 and variance 1 in each minibatch
    normalize_observations: bool = False  # by running statistics, frozen within an iteration
    normalize_rewards: bool = False  # by the running standard deviation of the discounted return
    hidden_sizes: tuple[int, ...] = (64, 64)  # of the policy and of the value network, which share nothing
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "tanh"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features, in place of the default network

    default_num_envs: ClassVar[int] = 8

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for spaces without a policy here, and for minibatches that do not divide an iteration."""
        batch_size = self.num_steps * spec.num_envs
        if batch_size % self.minibatch_size:
            raise BadInput(
                f"minibatch_size={self.minibatch_size} must divide num_steps * num_envs = "
                f"{self.num_steps} * {spec.num_envs} = {batch_size}"
            )
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation)
        policy_key, value_key = jax.random.split(key)
        policy = create_policy(policy_key, spec, encoder, torso, self.initial_log_std, self.learned_std)
        value = create_value(value_key, spec, encoder, torso)
        rewards = RewardScaler.zeros(spec.num_envs) if self.normalize_rewards else None
        progress = Progress.start()
        return Learner(policy, value, self.optimizer(progress).init((policy, value)), encoder, rewards, progress)

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
        """One iteration of Algorithm 1's outer loop."""
        reward, rewards = scale_rewards(learner, trajectory, self.discount)
        batch = estimate(learner, trajectory, reward, self.discount, self.gae_lambda)
        optimizer = self.optimizer(learner.progress)

        def minibatch_step(carry: tuple, minibatch: Batch) -> tuple[tuple, None]:
            networks, optimizer_state = carry
            grads, _ = jax.grad(self.loss, has_aux=True)(networks, minibatch, learner.progress)
            updates, optimizer_state = optimizer.update(grads, optimizer_state)
            return (optax.apply_updates(networks, updates), optimizer_state), None

        def epoch(carry: tuple, epoch_key: Key) -> tuple[tuple, None]:
            order = random_order(epoch_key, batch.advantage.size)
            minibatches = jax.tree.map(lambda x: x[order].reshape(-1, self.minibatch_size, *x.shape[1:]), batch)
            if self.normalize_advantages:  # here, for all minibatches at once: fewer small kernels
                minibatches = minibatches._replace(advantage=jax.nn.standardize(minibatches.advantage, axis=1))
            return jax.lax.scan(minibatch_step, carry, minibatches)

        carry = ((learner.policy, learner.value), learner.optimizer)
        (networks, optimizer_state), _ = jax.lax.scan(epoch, carry, jax.random.split(key, self.num_epochs))

        # Metrics of the new policy against the old, on the whole batch: cheaper than a mean over all minibatches.
        _, metrics = self.loss(networks, batch, learner.progress)
        # Of the values that the advantages were estimated with.
        metrics["value/explained_variance"] = explained_variance(batch.target - batch.advantage, batch.target)
        policy, value_function = networks
        return Learner(
            policy,
            value_function,
            optimizer_state,
            # Only now: the ratios above compare policies that read observations alike.
            learner.encoder.update(trajectory.observation),
            rewards,
            learner.progress.advance(trajectory.reward),
        ), metrics

    def loss(self, networks: tuple[Network, Network], batch: Batch, progress: Progress) -> tuple[Array, Metrics]:
        """Minus equation 9."""
        policy, value_function = networks
        distribution = policy(batch.observation)
        log_ratio = distribution.log_prob(batch.action) - batch.log_prob
        objective, metrics = self.objective(log_ratio, batch.advantage, progress)
        value_loss = ((value_function(batch.observation) - batch.target) ** 2).mean()
        entropy = distribution.entropy().mean()
        loss = -objective + self.value_coefficient * value_loss - self.entropy_coefficient * entropy
        return loss, {
            **metrics,
            "loss/policy": -objective,
            "loss/value": value_loss,
            "policy/entropy": entropy,
            # E[ratio - 1 - log ratio] >= 0 estimates KL(old || new) with little variance (Schulman 2020).
            "policy/kl": (jnp.expm1(log_ratio) - log_ratio).mean(),
        }

    def optimizer(self, progress: Progress) -> optax.GradientTransformation:
        """Adam on globally clipped gradients, all parameters in one vector: small networks are bound by kernels."""
        adam = optax.adam(at(self.learning_rate, progress), eps=1e-5)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(self.max_grad_norm), adam))
