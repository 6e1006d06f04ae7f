"""REINFORCE: Monte Carlo policy gradient (Williams 1992; Sutton & Barto 2018, section 13.3).

    initialise the policy pi_theta
    repeat
        run pi_theta for T steps in each of N environments                              (the collector)
        for each step t of each episode that ends among these steps:
            G_t <- sum_{k >= t} gamma^(k - t) r_{k+1}
        theta <- theta + alpha mean[gamma^t (G_t - b) grad log pi_theta(a_t | o_t) + c grad H(pi_theta(. | o_t))]
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

from parnassus.actor_critic import Behavior, act, create_policy
from parnassus.encoding import Encoder
from parnassus.networks import Network, Torso
from parnassus.returns import discounted_returns, in_finished_episode
from parnassus.schedules import Linear, Progress, at
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Learner(NamedTuple):
    policy: Network  # theta
    baseline: Float[Array, ""]  # b
    optimizer: optax.OptState
    encoder: Encoder
    progress: Progress


@pytree
class REINFORCE:
    """REINFORCE on the steps of episodes that end inside the trajectory; T should cover several episodes."""

    learning_rate: NonNegative | Linear = 3e-3  # alpha, Adam's step size
    num_steps: Count = 1000  # T: steps in each environment per iteration
    discount: Fraction = 0.99  # gamma, of future rewards
    baseline_rate: Fraction = 0.0  # beta: 0 for no baseline
    entropy_coefficient: NonNegative = 0.0  # c, of the entropy bonus; Williams and Peng 1991
    initial_log_std: float = 0.0  # of a Gaussian policy, whose actions live in [-1, 1]
    learned_std: bool = True  # of a Gaussian policy; False: it stays as it is
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = (64, 64)  # () is a linear policy
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "tanh"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features, in place of the default network

    default_num_envs: ClassVar[int] = 8

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for spaces without a policy here."""
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation)
        policy = create_policy(key, spec, encoder, torso, self.initial_log_std, self.learned_std)
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
        action, extras = act(behavior, observation, key, explore)
        return action, memory + 1, {**extras, "time": memory}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """One step along the policy gradient."""
        terminated, truncated = trajectory.terminated, trajectory.truncated
        returns = discounted_returns(trajectory.reward, terminated, truncated, self.discount)
        complete = in_finished_episode(terminated, truncated)
        num_complete = jnp.maximum(complete.sum(), 1)
        weight = complete * self.discount ** trajectory.extras["time"] * (returns - learner.baseline) / num_complete
        observation = learner.encoder(trajectory.observation)

        def loss(policy: Network) -> tuple[Array, tuple[Array, Array]]:
            distribution = policy(observation)
            policy_loss = -(weight * distribution.log_prob(trajectory.action)).sum()
            entropy = distribution.entropy().mean()
            return policy_loss - self.entropy_coefficient * entropy, (policy_loss, entropy)

        grads, (policy_loss, entropy) = jax.grad(loss, has_aux=True)(learner.policy)
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
