"""The natural policy gradient (Kakade 2001, "A natural policy gradient").

    initialise the policy pi_theta and the value function V_phi
    repeat
        run pi_theta for T steps in each of N environments                              (the collector)
        estimate advantages A_t with the generalised advantage estimator, and rewards to go R_t
        g <- grad mean[log pi_theta(a_t | o_t) A_t + c H(pi_theta(. | o_t))]
        theta <- theta + sqrt(2 delta / g^T F^-1 g) F^-1 g
        phi <- argmin mean[(V_phi(o_t) - R_t)^2], by several epochs of gradient steps

F^-1 g is the steepest ascent where distance is the KL divergence, KL ~ d^T F d / 2: the change of the policy does not
depend on how it is parameterised. The step goes as far as the quadratic model allows, to a KL of delta (or, given a
learning rate, to that many natural gradients if this is shorter), and nothing checks it: what TRPO adds is the line
search.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from parnassus.actor_critic import (
    Behavior,
    act,
    check_minibatches,
    create_policy,
    create_value,
    estimate,
    explained_variance,
    fit_value,
    scale_rewards,
)
from parnassus.encoding import Encoder
from parnassus.networks import Network, Torso
from parnassus.normalization import RewardScaler
from parnassus.schedules import Linear, Progress, at
from parnassus.second_order import conjugate_gradient, fisher_vector_product, natural_step
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Learner(NamedTuple):
    policy: Network  # theta
    value: Network  # phi
    optimizer: optax.OptState  # of the value function
    encoder: Encoder
    rewards: RewardScaler | None
    progress: Progress


@pytree
class NPG:
    """Natural policy gradient, its step measured by the KL divergence, with TRPO's defaults."""

    max_kl: NonNegative | Linear = 0.01  # delta: how far an iteration should move the policy, in nats
    learning_rate: NonNegative | Linear | None = None  # the longest step, in natural gradients; None: as delta allows
    value_learning_rate: NonNegative | Linear = 1e-3  # Adam's step size for the value function
    num_steps: Count = 2048  # T: steps in each environment per iteration
    num_epochs: Count = 10  # of the regression: passes over the transitions of an iteration
    minibatch_size: Count = 128  # of the regression: transitions per step; must divide num_steps * num_envs
    discount: Fraction = 0.99  # gamma, of future rewards
    gae_lambda: Fraction = 0.95  # lambda of the generalised advantage estimator
    cg_iterations: Count = 15  # at most so many conjugate gradients
    cg_damping: NonNegative = 0.1  # added to the diagonal of F
    entropy_coefficient: NonNegative = 0.0  # c, of the entropy bonus
    initial_log_std: float = 0.0  # of a Gaussian policy, whose actions live in [-1, 1]
    learned_std: bool = True  # of a Gaussian policy; False: it stays as it is
    normalize_advantages: bool = True  # to mean 0 and variance 1 in each iteration
    normalize_observations: bool = False  # by running statistics, frozen within an iteration
    normalize_rewards: bool = False  # by the running standard deviation of the discounted return
    hidden_sizes: tuple[int, ...] = (64, 64)  # of both networks; () is a linear policy and a linear value function
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "tanh"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features, in place of the default network

    default_num_envs: ClassVar[int] = 8

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for spaces without a policy here, and for minibatches that do not divide an iteration."""
        check_minibatches(self.minibatch_size, self.num_steps, spec)
        policy_key, value_key = jax.random.split(key)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation)
        policy = create_policy(policy_key, spec, encoder, torso, self.initial_log_std, self.learned_std)
        value = create_value(value_key, spec, encoder, torso)
        rewards = RewardScaler.zeros(spec.num_envs) if self.normalize_rewards else None
        progress = Progress.start()
        optimizer_state = self.regression(progress).init(ravel_pytree(value)[0])
        return Learner(policy, value, optimizer_state, encoder, rewards, progress)

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
        """One natural gradient step of the policy, one regression."""
        reward, rewards = scale_rewards(learner, trajectory, self.discount)
        batch = estimate(learner, trajectory, reward, self.discount, self.gae_lambda)
        advantage = jax.nn.standardize(batch.advantage) if self.normalize_advantages else batch.advantage
        old = learner.policy(batch.observation)
        theta, policy_of = ravel_pytree(learner.policy)

        def objective(theta: Array) -> tuple[Array, Array]:
            distribution = policy_of(theta)(batch.observation)
            entropy = distribution.entropy().mean()
            gain = (distribution.log_prob(batch.action) * advantage).mean()
            return gain + self.entropy_coefficient * entropy, entropy

        def kl(theta: Array) -> Array:
            return old.kl(policy_of(theta)(batch.observation)).mean()

        gradient, entropy = jax.grad(objective, has_aux=True)(theta)
        product = fisher_vector_product(kl, theta, self.cg_damping)
        direction = conjugate_gradient(product, gradient, self.cg_iterations)
        limit = jnp.inf if self.learning_rate is None else at(self.learning_rate, learner.progress)
        step = natural_step(direction, at(self.max_kl, learner.progress), limit)
        value, optimizer_state = fit_value(
            learner.value,
            self.regression(learner.progress),
            learner.optimizer,
            batch.observation,
            batch.target,
            key,
            self.num_epochs,
            self.minibatch_size,
        )
        return Learner(
            policy_of(theta + step),
            value,
            optimizer_state,
            learner.encoder.update(trajectory.observation),
            rewards,
            learner.progress.advance(trajectory.reward),
        ), {
            "policy/kl": kl(theta + step),
            "policy/entropy": entropy,
            "policy/gain_expected": gradient @ step,
            "policy/cg_residual": direction.residual,
            "loss/value": (batch.advantage**2).mean(),  # before the regression: on transitions it has not seen
            "value/explained_variance": explained_variance(batch.target - batch.advantage, batch.target),
        }

    def regression(self, progress: Progress) -> optax.GradientTransformation:
        """Adam, for all parameters of the value function in one vector."""
        return optax.adam(at(self.value_learning_rate, progress))
