"""Vanilla policy gradient with a learned baseline (Sutton et al. 2000; Schulman et al. 2016, section 5).

    initialise the policy pi_theta and the value function V_phi
    repeat
        run pi_theta for T steps in each of N environments                              (the collector)
        R_t <- the rewards to go, sum_{k >= t} gamma^(k - t) r_{k+1}
        A_t <- an advantage, by any estimator, with V_phi
        theta <- theta + alpha mean[A_t grad log pi_theta(a_t | o_t) + c grad H(pi_theta(. | o_t))]
        phi   <- argmin mean[(V_phi(o_t) - R_t)^2], by several epochs of gradient steps

Every transition is used for one step of the policy, so that the gradient stays that of the policy that acted; only the
regression goes over them again. Where a time limit or the trajectory ends an episode early, V_phi stands for the rest.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
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
    explained_variance,
    fit_value,
    flatten,
    scale_rewards,
)
from parnassus.advantages import GAE, TD, Estimator, NStep, RewardsToGo
from parnassus.encoding import Encoder
from parnassus.networks import Network, Torso
from parnassus.normalization import RewardScaler
from parnassus.returns import lambda_returns
from parnassus.schedules import Linear, Progress, at
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Learner(NamedTuple):
    policy: Network  # theta
    value: Network  # phi
    optimizers: tuple[optax.OptState, optax.OptState]  # of the policy, of the value function
    encoder: Encoder
    rewards: RewardScaler | None
    progress: Progress


@pytree
class VPG:
    """One gradient step of the policy, then a regression of the value function, on each trajectory."""

    learning_rate: NonNegative | Linear = 1e-3  # alpha, Adam's step size for the policy
    value_learning_rate: NonNegative | Linear = 1e-3  # Adam's step size for the value function
    num_steps: Count = 128  # T: steps in each environment per iteration
    num_epochs: Count = 10  # of the regression: passes over the transitions of an iteration
    minibatch_size: Count = 256  # of the regression: transitions per step; must divide num_steps * num_envs
    discount: Fraction = 0.99  # gamma, of future rewards
    estimator: GAE | NStep | RewardsToGo | TD | Estimator = GAE()  # of advantages, each kind with options of its own
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
        ascent, regression = self.optimizers(progress)
        states = ascent.init(policy), regression.init(ravel_pytree(value)[0])
        return Learner(policy, value, states, encoder, rewards, progress)

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
        """One step along the policy gradient, one regression."""
        reward, rewards = scale_rewards(learner, trajectory, self.discount)
        observation = learner.encoder(trajectory.observation)
        terminated, truncated = trajectory.terminated, trajectory.truncated
        value = learner.value(observation)
        next_value = learner.value(learner.encoder(trajectory.next_observation))
        to_go = lambda_returns(reward, next_value, terminated, truncated, self.discount, 1.0)
        advantage = self.estimator(reward, value, next_value, terminated, truncated, self.discount)
        if self.normalize_advantages:
            advantage = jax.nn.standardize(advantage, axis=None)

        def loss(policy: Network) -> tuple[Array, tuple[Array, Array]]:
            distribution = policy(observation)
            policy_loss = -(advantage * distribution.log_prob(trajectory.action)).mean()
            entropy = distribution.entropy().mean()
            return policy_loss - self.entropy_coefficient * entropy, (policy_loss, entropy)

        grads, (policy_loss, entropy) = jax.grad(loss, has_aux=True)(learner.policy)
        ascent, regression = self.optimizers(learner.progress)
        step, ascent_state = ascent.update(grads, learner.optimizers[0])
        fitted, regression_state = fit_value(
            learner.value,
            regression,
            learner.optimizers[1],
            flatten(observation),
            flatten(to_go),
            key,
            self.num_epochs,
            self.minibatch_size,
        )
        return Learner(
            optax.apply_updates(learner.policy, step),
            fitted,
            (ascent_state, regression_state),
            learner.encoder.update(trajectory.observation),
            rewards,
            learner.progress.advance(reward),
        ), {
            "loss/policy": policy_loss,
            "loss/value": ((value - to_go) ** 2).mean(),  # before the regression: on transitions it has not seen
            "policy/entropy": entropy,
            "value/explained_variance": explained_variance(value, to_go),
        }

    def optimizers(self, progress: Progress) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """Adam for the policy and for the value function, all parameters of each in one vector."""
        rates = at(self.learning_rate, progress), at(self.value_learning_rate, progress)
        return optax.flatten(optax.adam(rates[0])), optax.adam(rates[1])
