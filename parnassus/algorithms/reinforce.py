"""REINFORCE: Monte Carlo policy gradient (Williams 1992; Sutton & Barto 2018, section 13.3).

    initialise the policy pi_theta
    repeat
        run pi_theta for T steps in each of N environments                              (the collector)
        for each step t of each episode that ends among these steps:
            G_t <- sum_{k >= t} gamma^(k - t) r_{k+1}
        theta <- theta + alpha mean[gamma^t (G_t - b) grad log pi_theta(a_t | o_t)]
        b <- b + beta (mean[G_t] - b)

gamma^t counts from the episode's start, so this is the gradient of the discounted return from there; many
implementations drop it. The constant b is the paper's reinforcement baseline: it changes no expectation, only variance.
Without a value function nothing can be bootstrapped: the return of an episode that a time limit ends stops there.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from parnassus.distributions import parameterize
from parnassus.encoding import Encoder, zeros
from parnassus.networks import Network, Policy, Torso
from parnassus.returns import discounted_returns, in_finished_episode
from parnassus.schedules import Linear, Progress, at
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Learner(NamedTuple):
    policy: Network  # theta
    baseline: Float[Array, ""]  # b
    optimizer: optax.OptState
    encoder: Encoder
    progress: Progress


class Behavior(NamedTuple):
    policy: Network
    encoder: Encoder


@pytree
class REINFORCE:
    """REINFORCE on the steps of episodes that end inside the trajectory; T should cover several episodes."""

    learning_rate: NonNegative | Linear = 3e-3  # alpha, Adam's step size
    num_steps: Count = 1000  # T: steps in each environment per iteration
    discount: Fraction = 0.99  # gamma, of future rewards
    baseline_rate: Fraction = 0.0  # beta: 0 for no baseline
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = (64, 64)  # () is a linear policy
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "tanh"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features, in place of the default network

    default_num_envs: ClassVar[int] = 8

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for spaces without a policy here."""
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation)
        observation = encoder(zeros(spec.observation_space, (1,)))
        policy = Network.create(Policy(torso, parameterize(spec.action_space)), key, observation)
        progress = Progress.start()
        return Learner(policy, jnp.zeros(()), self.optimizer(progress).init(policy), encoder, progress)

    def behavior(self, learner: Learner) -> Behavior:
        """The policy and the statistics it reads observations with."""
        return Behavior(learner.policy, learner.encoder)

    def initial_memory(self, spec: Spec) -> Int[Array, "N"]:
        """t, the time since each episode's start."""
        return jnp.zeros(spec.num_envs, jnp.int32)

    def act(self, behavior: Behavior, memory: Int[Array, "N"], observation: Tree, key: Key, explore: bool) -> tuple:
        """A draw from the policy, or its mode."""
        distribution = behavior.policy(behavior.encoder(observation))
        action = distribution.sample(key) if explore else distribution.mode()
        return action, memory + 1, {"time": memory}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """One step along the policy gradient."""
        terminated, truncated = trajectory.terminated, trajectory.truncated
        returns = discounted_returns(trajectory.reward, terminated, truncated, self.discount)
        complete = in_finished_episode(terminated, truncated)
        num_complete = jnp.maximum(complete.sum(), 1)
        weight = complete * self.discount ** trajectory.extras["time"] * (returns - learner.baseline) / num_complete
        observation = learner.encoder(trajectory.observation)

        def loss(policy: Network) -> tuple[Array, Array]:
            distribution = policy(observation)
            return -(weight * distribution.log_prob(trajectory.action)).sum(), distribution.entropy().mean()

        (policy_loss, entropy), grads = jax.value_and_grad(loss, has_aux=True)(learner.policy)
        updates, optimizer_state = self.optimizer(learner.progress).update(grads, learner.optimizer)
        mean_return = jnp.where(complete, returns, 0.0).sum() / num_complete
        rate = jnp.where(complete.any(), self.baseline_rate, 0.0)
        return Learner(
            optax.apply_updates(learner.policy, updates),
            learner.baseline + rate * (mean_return - learner.baseline),
            optimizer_state,
            learner.encoder.update(trajectory.observation),
            learner.progress.advance(trajectory.reward),
        ), {"loss/policy": policy_loss, "policy/entropy": entropy, "policy/used_fraction": complete.mean()}

    def optimizer(self, progress: Progress) -> optax.GradientTransformation:
        """Adam."""
        return optax.adam(at(self.learning_rate, progress))
