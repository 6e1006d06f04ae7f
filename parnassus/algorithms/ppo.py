"""Proximal policy optimization (Schulman et al. 2017, arXiv 1707.06347, Algorithm 1), with each of its objectives.

    initialise the policy pi_theta and the value function V_phi
    repeat
        run pi_theta for T steps in each of N environments                              (the collector)
        estimate advantages A_t with the generalised advantage estimator, targets A_t + V_phi(o_t)
        theta_old <- theta
        for K epochs, for each minibatch of the T * N transitions, shuffled:
            ratio <- pi_theta(a_t | o_t) / pi_theta_old(a_t | o_t)
            ascend  E[L_t - c1 (V_phi(o_t) - target_t)^2 + c2 H(pi_theta(. | o_t))]                 (equation 9)
        AdaptiveKL only: beta <- beta / 2 or 2 beta, if E[KL(pi_theta_old || pi_theta)] is far from its target

L_t is the objective (`parnassus.objectives`):

    Clip                    min(ratio A_t, clip(ratio, 1 - epsilon, 1 + epsilon) A_t)               (equation 7)
    FixedKL, AdaptiveKL     ratio A_t - beta KL(pi_theta_old(. | o_t) || pi_theta(. | o_t))         (equation 8)
    Unclipped               ratio A_t                                                               (equation 6)

Time limits are bootstrapped with the value of the true successor. With a temperature alpha > 0 the rewards are
r - alpha log pi_theta(a | o): the maximum-entropy objective, see `soft_rewards`.
"""

from functools import partial
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from parnassus.actor_critic import (
    Batch,
    Behavior,
    act,
    check_minibatches,
    create_policy,
    create_value,
    estimate,
    explained_variance,
    random_order,
    scale_rewards,
    soft_rewards,
)
from parnassus.distributions import Distribution, spread
from parnassus.encoding import Encoder
from parnassus.networks import Network, Torso
from parnassus.normalization import RewardScaler
from parnassus.objectives import AdaptiveKL, Change, Clip, FixedKL, Objective, State, Unclipped
from parnassus.schedules import Linear, Progress, at
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Old(NamedTuple):
    """What an iteration starts from, on a batch; leaves [B, ...]."""

    distribution: Distribution  # pi_theta_old(. | o_t)
    value: Float[Array, "B"]  # V_phi_old(o_t)


class Learner(NamedTuple):
    policy: Network  # theta
    value: Network  # phi
    optimizer: optax.OptState
    objective: State  # beta of AdaptiveKL, () of the others
    encoder: Encoder
    rewards: RewardScaler | None
    progress: Progress


@pytree
class PPO:
    """PPO with the usual defaults (those of the paper's MuJoCo experiments and of Stable-Baselines3)."""

    learning_rate: NonNegative | Linear = 3e-4  # Adam's step size
    num_steps: Count = 2048  # T: steps in each environment per iteration
    num_epochs: Count = 10  # K: passes over the transitions of an iteration
    minibatch_size: Count = 64  # transitions per gradient step; must divide num_steps * num_envs
    discount: Fraction = 0.99  # gamma, of future rewards
    gae_lambda: Fraction = 0.95  # lambda of the generalised advantage estimator
    objective: Clip | AdaptiveKL | FixedKL | Unclipped | Objective = Clip()  # L, each kind with options of its own
    target_kl: NonNegative | None = None  # an iteration stops where KL(old || new) of a minibatch is 1.5 times this
    entropy_coefficient: NonNegative = 0.0  # c2, of the entropy bonus
    temperature: NonNegative | Linear = 0.0  # alpha, of the entropy inside the return
    value_coefficient: NonNegative = 0.5  # c1, of the value loss
    value_clip_range: NonNegative | Linear | None = None  # how far from its old value V may be moved
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
        check_minibatches(self.minibatch_size, self.num_steps, spec)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation)
        policy_key, value_key = jax.random.split(key)
        policy = create_policy(policy_key, spec, encoder, torso, self.initial_log_std, self.learned_std)
        value = create_value(value_key, spec, encoder, torso)
        rewards = RewardScaler.zeros(spec.num_envs) if self.normalize_rewards else None
        progress = Progress.start()
        optimizer_state = self.optimizer(progress).init(ravel_pytree((policy, value))[0])
        return Learner(policy, value, optimizer_state, self.objective.init(), encoder, rewards, progress)

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
        trajectory = soft_rewards(trajectory, at(self.temperature, learner.progress))
        reward, rewards = scale_rewards(learner, trajectory, self.discount)
        batch = estimate(learner, trajectory, reward, self.discount, self.gae_lambda)
        # What the objective does not use of this, the compiler leaves out.
        old = Old(spread(learner.policy(batch.observation), *batch.advantage.shape), batch.target - batch.advantage)
        optimizer = self.optimizer(learner.progress)
        # All parameters in one vector: small networks are bound by the number of kernels.
        parameters, networks_of = ravel_pytree((learner.policy, learner.value))

        def minibatch_step(carry: tuple, minibatch: tuple[Batch, Old]) -> tuple[tuple, None]:
            parameters, optimizer_state, stopped = carry
            loss = lambda parameters: self.loss(networks_of(parameters), *minibatch, learner)  # noqa: E731
            grads, metrics = jax.grad(loss, has_aux=True)(parameters)
            updates, stepped_optimizer = optimizer.update(grads, optimizer_state)
            stepped = (parameters + updates, stepped_optimizer)
            if self.target_kl is not None:  # the minibatch that shows a policy too far away moves it no further
                stopped = metrics["policy/kl"] > 1.5 * self.target_kl
                stepped = jax.tree.map(partial(jnp.where, stopped), (parameters, optimizer_state), stepped)
            return (*stepped, stopped), None

        def unless_stopped(carry: tuple, minibatch: tuple[Batch, Old]) -> tuple[tuple, None]:
            return jax.lax.cond(carry[-1], lambda: (carry, None), lambda: minibatch_step(carry, minibatch))

        def epoch(carry: tuple, epoch_key: Key) -> tuple[tuple, None]:
            order = random_order(epoch_key, batch.advantage.size)
            minibatches, olds = jax.tree.map(
                lambda x: x[order].reshape(-1, self.minibatch_size, *x.shape[1:]), (batch, old)
            )
            if self.normalize_advantages:  # here, for all minibatches at once: fewer small kernels
                minibatches = minibatches._replace(advantage=jax.nn.standardize(minibatches.advantage, axis=1))
            step = minibatch_step if self.target_kl is None else unless_stopped
            return jax.lax.scan(step, carry, (minibatches, olds))

        carry = (parameters, learner.optimizer, jnp.zeros((), bool))
        (parameters, optimizer_state, stopped), _ = jax.lax.scan(epoch, carry, jax.random.split(key, self.num_epochs))
        networks = networks_of(parameters)

        # Metrics of the new policy against the old, on the whole batch: cheaper than a mean over all minibatches.
        _, metrics = self.loss(networks, batch, old, learner)
        # Of the values that the advantages were estimated with.
        metrics["value/explained_variance"] = explained_variance(old.value, batch.target)
        if self.target_kl is not None:
            metrics["policy/stopped"] = stopped.astype(jnp.float32)
        policy, value_function = networks
        return Learner(
            policy,
            value_function,
            optimizer_state,
            self.objective.update(learner.objective, metrics["policy/kl"]),
            # Only now: the ratios above compare policies that read observations alike.
            learner.encoder.update(trajectory.observation),
            rewards,
            learner.progress.advance(trajectory.reward),
        ), metrics

    def loss(
        self, networks: tuple[Network, Network], batch: Batch, old: Old, learner: Learner
    ) -> tuple[Array, Metrics]:
        """Minus equation 9; of the learner, the objective's state and the progress."""
        policy, value_function = networks
        distribution = policy(batch.observation)
        log_ratio = distribution.log_prob(batch.action) - batch.log_prob
        change = Change(log_ratio, batch.advantage, old.distribution.kl(distribution))
        objective, metrics = self.objective(learner.objective, change, learner.progress)
        value_loss = self.value_loss(value_function(batch.observation), old.value, batch.target, learner.progress)
        entropy = distribution.entropy().mean()
        loss = -objective + self.value_coefficient * value_loss - self.entropy_coefficient * entropy
        return loss, {
            **metrics,
            "loss/policy": -objective,
            "loss/value": value_loss,
            "policy/entropy": entropy,
            "policy/kl": change.kl.mean(),
        }

    def value_loss(
        self, value: Float[Array, "B"], old_value: Float[Array, "B"], target: Float[Array, "B"], progress: Progress
    ) -> Float[Array, ""]:
        """The squared error; with a clip range, the larger of it and that of the value kept so near to the old one.

        As in the authors' code (OpenAI baselines, ppo2), not in the paper; Andrychowicz et al. 2021 find that it hurts.
        """
        error = (value - target) ** 2
        if self.value_clip_range is None:
            return error.mean()
        clip_range = at(self.value_clip_range, progress)
        clipped = old_value + jnp.clip(value - old_value, -clip_range, clip_range)
        return jnp.maximum(error, (clipped - target) ** 2).mean()

    def optimizer(self, progress: Progress) -> optax.GradientTransformation:
        """Adam on globally clipped gradients."""
        adam = optax.adam(at(self.learning_rate, progress), eps=1e-5)
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), adam)
