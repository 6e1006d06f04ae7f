"""Trust region policy optimization (Schulman et al. 2015, arXiv 1502.05477, section 6 and appendix C).

    initialise the policy pi_theta and the value function V_phi
    repeat
        run pi_theta for T steps in each of N environments                              (the collector)
        estimate advantages A_t with the generalised advantage estimator, and rewards to go R_t
        L(theta') <- mean[pi_theta'(a_t | o_t) / pi_theta(a_t | o_t) A_t + c H(pi_theta'(. | o_t))]
        D(theta') <- mean[KL(pi_theta(. | o_t) || pi_theta'(. | o_t))]
        g <- grad L(theta);  x <- F^-1 g by conjugate gradients, F x = grad((grad D)^T x)
        for j = 0, 1, ..., J - 1:
            theta' <- theta + alpha^j sqrt(2 delta / x^T F x) x
            if L(theta') > L(theta) and D(theta') <= delta: theta <- theta', stop
        phi <- argmin mean[(V_phi(o_t) - R_t)^2], by several epochs of gradient steps

If no step is accepted, the policy stays exactly as it was. The value function is fitted after the advantages were
estimated, so that they are those of a function that has not seen this data.
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
from parnassus.second_order import conjugate_gradient, fisher_vector_product, line_search, natural_step
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Learner(NamedTuple):
    policy: Network  # theta
    value: Network  # phi
    optimizer: optax.OptState  # of the value function
    encoder: Encoder
    rewards: RewardScaler | None
    progress: Progress


@pytree
class TRPO:
    """TRPO with the defaults of Stable-Baselines3's contrib package."""

    max_kl: NonNegative | Linear = 0.01  # delta: how far an iteration may move the policy, in nats
    value_learning_rate: NonNegative | Linear = 1e-3  # Adam's step size for the value function
    num_steps: Count = 2048  # T: steps in each environment per iteration
    num_epochs: Count = 10  # of the regression: passes over the transitions of an iteration
    minibatch_size: Count = 128  # of the regression: transitions per step; must divide num_steps * num_envs
    discount: Fraction = 0.99  # gamma, of future rewards
    gae_lambda: Fraction = 0.95  # lambda of the generalised advantage estimator
    cg_iterations: Count = 15  # at most so many conjugate gradients
    cg_damping: NonNegative = 0.1  # added to the diagonal of F
    shrinking: Fraction = 0.8  # alpha: each refused step is followed by one so much shorter
    max_backtracks: Count = 10  # J: steps tried before giving up
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
        """One step of the policy inside the trust region, one regression."""
        reward, rewards = scale_rewards(learner, trajectory, self.discount)
        batch = estimate(learner, trajectory, reward, self.discount, self.gae_lambda)
        advantage = jax.nn.standardize(batch.advantage) if self.normalize_advantages else batch.advantage
        max_kl = at(self.max_kl, learner.progress)
        old = learner.policy(batch.observation)
        theta, policy_of = ravel_pytree(learner.policy)

        def surrogate(theta: Array) -> tuple[Array, Array]:
            distribution = policy_of(theta)(batch.observation)
            ratio = jnp.exp(distribution.log_prob(batch.action) - batch.log_prob)
            entropy = distribution.entropy().mean()
            return (ratio * advantage).mean() + self.entropy_coefficient * entropy, entropy

        def kl(theta: Array) -> Array:
            return old.kl(policy_of(theta)(batch.observation)).mean()

        (before, _), gradient = jax.value_and_grad(surrogate, has_aux=True)(theta)
        product = fisher_vector_product(kl, theta, self.cg_damping)
        direction = conjugate_gradient(product, gradient, self.cg_iterations)
        step = natural_step(direction, max_kl)

        def check(theta: Array) -> tuple[Array, Metrics]:
            (after, entropy), moved = surrogate(theta), kl(theta)
            seen = {"policy/kl": moved, "policy/surrogate_gain": after - before, "policy/entropy": entropy}
            return (after > before) & (moved <= max_kl), seen

        search = line_search(check, theta, step, self.shrinking, self.max_backtracks)
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
            policy_of(search.parameters),
            value,
            optimizer_state,
            learner.encoder.update(trajectory.observation),
            rewards,
            learner.progress.advance(trajectory.reward),
        ), {
            **search.seen,  # of the step taken, or of the last one refused
            "policy/surrogate_gain_expected": gradient @ step,
            "policy/cg_residual": direction.residual,
            "policy/backtracks": search.backtracks.astype(jnp.float32),
            "policy/rejected": (~search.accepted).astype(jnp.float32),
            "loss/value": (batch.advantage**2).mean(),  # before the regression: on transitions it has not seen
            "value/explained_variance": explained_variance(batch.target - batch.advantage, batch.target),
        }

    def regression(self, progress: Progress) -> optax.GradientTransformation:
        """Adam, for all parameters of the value function in one vector."""
        return optax.adam(at(self.value_learning_rate, progress))
