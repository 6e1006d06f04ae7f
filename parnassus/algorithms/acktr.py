"""ACKTR: an actor-critic that steps along K-FAC's natural gradient inside a trust region (Wu et al. 2017,
arXiv 1708.05144, sections 3.1 and 3.2).

    initialise the policy pi_theta, the value function V_phi, and for each layer of both the averages A and S
    repeat
        run pi_theta for T steps in each of N environments                              (the collector)
        estimate advantages A_t, and targets A_t + V_phi(o_t) for the value function
        for each layer of pi: A <- average of a a^T, S <- average of g g^T, g from log pi(a | o_t) with a drawn afresh
        d <- F^-1 grad E[log pi_theta(a_t | o_t) A_t + c H(pi_theta(. | o_t))],  F^-1 D = A^-1 D S^-1 layer by layer
        theta <- theta + min(eta_max, sqrt(2 delta / d^T F d)) d                        KL(old || new) ~ delta at most
        the same for phi, whose F is the Gauss-Newton matrix of (V_phi(o_t) - target_t)^2 / 2

The critic is read as a Gaussian around V_phi (section 3.1). Its Gauss-Newton matrix is that of variance 1, as in the
paper; for its trust region the variance is the batch's mean squared error, so that delta does not depend on the scale
of the rewards. A Gaussian policy's free log standard deviations have the Fisher matrix 2 I, and no covariance with the
mean. Against the reference code: no momentum, and the factors come from the model's own draws, not from a_t.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
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
    flatten,
    scale_rewards,
)
from parnassus.distributions import Distribution
from parnassus.encoding import Encoder, zeros
from parnassus.kfac import KFAC, Curvature, trust_region
from parnassus.networks import Network, Torso
from parnassus.normalization import RewardScaler
from parnassus.schedules import Linear, Progress, at
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Learner(NamedTuple):
    policy: Network  # theta
    value: Network  # phi
    policy_curvature: Curvature
    value_curvature: Curvature
    encoder: Encoder
    rewards: RewardScaler | None
    progress: Progress


@pytree
class ACKTR:
    """Actor-critic using Kronecker-factored trust region."""

    learning_rate: NonNegative | Linear = 0.25  # eta_max: the longest step, in natural gradients
    num_steps: Count = 32  # T: steps in each environment per update
    discount: Fraction = 0.99  # gamma, of future rewards
    gae_lambda: Fraction = 0.95  # lambda of the generalised advantage estimator; 1: n-step returns as in the paper
    max_kl: NonNegative | Linear = 0.002  # delta, of the policy
    value_max_kl: NonNegative | Linear = 0.01  # delta, of the value function; with 0.1 it can diverge
    kfac: KFAC = KFAC(decay=0.9, damping=0.01, period=10)  # of the policy and of the value function
    curvature_stride: Count = 4  # the factors are averaged over every so manieth time step: enough, and cheaper
    entropy_coefficient: NonNegative = 0.0  # c, of the entropy bonus
    initial_log_std: float = 0.0  # of a Gaussian policy, whose actions live in [-1, 1]
    learned_std: bool = True  # of a Gaussian policy; False: it stays as it is
    normalize_advantages: bool = True  # to mean 0 and variance 1 in each update
    normalize_observations: bool = False  # by running statistics, frozen within an iteration
    normalize_rewards: bool = False  # by the running standard deviation of the discounted return
    hidden_sizes: tuple[int, ...] = (64, 64)  # of the policy and of the value network, which share nothing
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "tanh"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features: of dense and convolution layers only

    default_num_envs: ClassVar[int] = 8

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for spaces without a policy here, and for networks with layers that K-FAC does not know."""
        policy_key, value_key = jax.random.split(key)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation)
        policy = create_policy(policy_key, spec, encoder, torso, self.initial_log_std, self.learned_std)
        value = create_value(value_key, spec, encoder, torso)
        rewards = RewardScaler.zeros(spec.num_envs) if self.normalize_rewards else None
        observation = encoder(zeros(spec.observation_space, (1,)))
        blocks = {"log_std": 2.0} if "log_std" in policy.params else {}
        return Learner(
            policy,
            value,
            self.kfac.init(policy, observation, blocks),
            self.kfac.init(value, observation),
            encoder,
            rewards,
            Progress.start(),
        )

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
        """One natural gradient step of the policy, and one of the value function."""
        reward, rewards = scale_rewards(learner, trajectory, self.discount)
        batch = estimate(learner, trajectory, reward, self.discount, self.gae_lambda)
        policy, policy_curvature, policy_metrics = self.improve(learner, batch, key)
        value, value_curvature, value_metrics = self.fit(learner, batch)
        return Learner(
            policy,
            value,
            policy_curvature,
            value_curvature,
            learner.encoder.update(trajectory.observation),
            rewards,
            learner.progress.advance(trajectory.reward),
        ), policy_metrics | value_metrics

    def improve(self, learner: Learner, batch: Batch, key: Key) -> tuple[Network, Curvature, Metrics]:
        """The policy after a step of at most `max_kl`."""

        def log_prob_of_a_draw(distribution: Distribution) -> Float[Array, "B"]:
            # A clone: K-FAC calls this in a loop, of one trip or none, which looks like using a key again and again.
            return distribution.log_prob(jax.lax.stop_gradient(distribution.sample(jax.random.clone(key))))

        thinned = self.thinned(batch.observation)
        curvature = self.kfac.update(learner.policy_curvature, learner.policy, thinned, log_prob_of_a_draw)
        grads, metrics = jax.grad(self.policy_loss, has_aux=True)(learner.policy, batch)
        max_kl, limit = at(self.max_kl, learner.progress), at(self.learning_rate, learner.progress)
        direction = self.kfac.precondition(curvature, grads)
        step, predicted = trust_region(direction, grads, max_kl, limit)
        policy = descend(learner.policy, direction, step)
        kl = learner.policy(thinned).kl(policy(thinned)).mean()
        return (
            policy,
            curvature,
            metrics
            | {
                "policy/kl": kl,
                "policy/kl_predicted": predicted,
                "policy/step_size": step,
            },
        )

    def fit(self, learner: Learner, batch: Batch) -> tuple[Network, Curvature, Metrics]:
        """The value function after a Gauss-Newton step of at most `value_max_kl`."""
        curvature = self.kfac.update(
            learner.value_curvature, learner.value, self.thinned(batch.observation), lambda value: value
        )
        loss, grads = jax.value_and_grad(self.value_loss)(learner.value, batch)
        variance, max_kl = 2 * loss, at(self.value_max_kl, learner.progress)
        direction = self.kfac.precondition(curvature, grads)
        # (V' - V)^2 / (2 variance) <= max_kl on average
        step, predicted = trust_region(direction, grads, max_kl * variance, at(self.learning_rate, learner.progress))
        return (
            descend(learner.value, direction, step),
            curvature,
            {
                "loss/value": variance,
                "value/kl_predicted": predicted / (variance + 1e-20),
                "value/step_size": step,
                "value/explained_variance": explained_variance(batch.target - batch.advantage, batch.target),
            },
        )

    def policy_loss(self, policy: Network, batch: Batch) -> tuple[Array, Metrics]:
        """Minus the policy gradient's objective, equation 1, with the entropy bonus."""
        distribution = policy(batch.observation)
        advantage = jax.nn.standardize(batch.advantage) if self.normalize_advantages else batch.advantage
        objective = (distribution.log_prob(batch.action) * advantage).mean()
        entropy = distribution.entropy().mean()
        return -objective - self.entropy_coefficient * entropy, {"loss/policy": -objective, "policy/entropy": entropy}

    def value_loss(self, value: Network, batch: Batch) -> Float[Array, ""]:
        """Half the mean squared error: minus the log-likelihood of a Gaussian with variance 1."""
        return 0.5 * ((value(batch.observation) - batch.target) ** 2).mean()

    def thinned(self, observation: Tree) -> Tree:
        """The transitions that the curvature is estimated from."""
        by_time = jax.tree.map(lambda x: x.reshape(self.num_steps, -1, *x.shape[1:]), observation)
        return flatten(jax.tree.map(lambda x: x[:: self.curvature_stride], by_time))


def descend(network: Network, direction: Network, step: Array) -> Network:
    """The network after `step` times `direction` is taken from its parameters."""
    return jax.tree.map(lambda x, d: x - step * d, network, direction)
