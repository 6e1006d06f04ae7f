"""A3C: asynchronous advantage actor-critic (Mnih et al. 2016, arXiv 1602.01783, Algorithm S3 and section 4).

    shared by all workers: theta of the policy, theta_v of the value function, RMSProp's g, the counter T
    each worker, in an environment of its own, until T > T_max:
        theta', theta_v' <- theta, theta_v
        run pi_theta' for t_max steps; T <- T + t_max                                   (the collector)
        R <- 0 if the last state is terminal, else V_theta_v'(o_{t_max})
        d <- 0
        for i = t_max - 1, ..., 0:
            R <- r_{i+1} + gamma R
            d <- d - grad [log pi_theta'(a_i | o_i) (R - V_theta_v'(o_i)) + c2 H(pi_theta'(. | o_i))
                           - c1 (R - V_theta_v'(o_i))^2]
        g <- alpha g + (1 - alpha) d^2                                                  (without a lock)
        theta, theta_v <- (theta, theta_v) - eta d / sqrt(g + epsilon)                  (without a lock)

The two halves are methods, `gradients` and `apply`: what other workers do to the shared memory between them is the
business of `parnassus.distributed.asynchronous`. One after the other they are `learn`, a synchronous A2C update.

A segment goes on past an episode's end, where R starts anew, so that every one has t_max steps; a time limit is
bootstrapped with the value of the true successor. d is the mean over the segment, not the sum: RMSProp divides it out.
"""

import dataclasses
from typing import Annotated, ClassVar, Literal, NamedTuple

import optax
from flax import linen as nn
from jaxtyping import Array, Float

from parnassus.actor_critic import Behavior, act, scale_rewards, soft_rewards
from parnassus.algorithms.a2c import A2C, Learner, Networks
from parnassus.distributions import Distribution, temper
from parnassus.normalization import RewardScaler
from parnassus.schedules import Linear, at
from parnassus.types import Bounds, Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Tempered(NamedTuple):
    """The networks with the policy at a temperature; the values stay."""

    networks: Networks
    temperature: float | Array

    def __call__(self, observation: Tree) -> tuple[Distribution, Float[Array, "*batch"]]:
        """pi(. | o)^(1 / temperature), normalised, and V(o)."""
        distribution, value = self.networks(observation)
        return temper(distribution, self.temperature), value


@pytree
class A3C:
    """Each of `num_envs` workers acts, differentiates and updates without waiting for the others.

    What is not about that is A2C's: the learner, the gradient of a segment, the optimiser.
    """

    learning_rate: NonNegative | Linear = 7e-4  # eta, of RMSProp or Adam
    num_steps: Count = 5  # t_max: steps of a segment, between two updates by one worker
    discount: Fraction = 0.99  # gamma, of future rewards
    gae_lambda: Fraction = 1.0  # 1: n-step returns as in the paper; less: the generalised advantage estimator
    entropy_coefficient: NonNegative = 0.01  # c2, of the entropy bonus
    temperature: NonNegative | Linear = 0.0  # alpha, of the entropy inside the return
    value_coefficient: NonNegative = 0.5  # c1, of the value loss
    max_grad_norm: NonNegative = 0.5  # the global norm that gradients are clipped to
    exploration: Annotated[float, Bounds(1e-3)] = 1.0  # a temperature: actions are drawn from pi^(1 / exploration)
    exploration_ratio: Annotated[float, Bounds(1e-3)] = 1.0  # the last worker's temperature over the first's
    initial_log_std: float = 0.0  # of a Gaussian policy, whose actions live in [-1, 1]
    learned_std: bool = True  # of a Gaussian policy; False: it stays as it is
    normalize_advantages: bool = False  # to mean 0 and variance 1 in each segment
    normalize_observations: bool = False  # by running statistics that the workers share
    normalize_rewards: bool = False  # by the running standard deviation of the discounted return
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"  # RMSProp as in the paper, or Adam
    optimizer_epsilon: NonNegative = 1e-5  # epsilon. RMSProp: under the root; Adam: beside it
    shared_network: bool = False  # one network with two heads, as in the paper, or two networks
    hidden_sizes: tuple[int, ...] = (64, 64)  # of the networks; () is a linear policy and a linear value function
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "tanh"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features, in place of the default network

    default_num_envs: ClassVar[int] = 2  # workers

    @property
    def synchronous(self) -> A2C:
        """A2C with the same hyper-parameters."""
        return A2C(**{field.name: getattr(self, field.name) for field in dataclasses.fields(A2C)})

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for spaces without a policy here."""
        return self.synchronous.init(key, spec)

    def worker(self, index: int, num_workers: int) -> "A3C":
        """The algorithm as this worker runs it: at a temperature of its own, if there is a ratio between them.

        Temperatures go up geometrically from the first worker to the last, with `exploration` in the middle.
        """
        position = index / (num_workers - 1) - 0.5 if num_workers > 1 else 0.0
        return dataclasses.replace(self, exploration=self.exploration * self.exploration_ratio**position)

    def parameters(self, learner: Learner) -> Networks:
        """theta and theta_v: all workers' steps are added to them. Of the rest, the last to write decides."""
        return learner.networks

    def behavior(self, learner: Learner) -> Behavior:
        """The policy and the statistics it reads observations with."""
        return self.synchronous.behavior(learner)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Tree, key: Key, explore: bool) -> tuple:
        """A draw from the policy at this worker's temperature, or the policy's mode."""
        if not explore:
            action, extras = act(behavior, observation, key, explore)
            return action, memory, extras
        distribution = temper(behavior.policy(behavior.encoder(observation)), self.exploration)
        action, log_prob = distribution.sample_and_log_prob(key)
        return action, memory, {"log_prob": log_prob}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """Both halves with nothing between them."""
        gradients, metrics = self.gradients(learner, trajectory, key)
        return self.apply(learner, gradients, trajectory), metrics

    def gradients(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Networks, Metrics]:
        """d of one segment, by the worker's own copy of the learner; of the policy that acted, temperature and all."""
        reward, _ = self.rewards(learner, trajectory)
        networks = Tempered(learner.networks, self.exploration)
        segment = trajectory._replace(reward=reward)
        d, metrics = self.synchronous.segment_gradient(networks, learner.encoder, segment)
        return d.networks, metrics

    def apply(self, learner: Learner, gradients: Networks, trajectory: Transition) -> Learner:
        """The optimiser's step from wherever theta and g are by now; the running statistics see the segment."""
        transformation = self.synchronous.transformation(learner.progress)
        updates, optimizer_state = transformation.update(gradients, learner.optimizer)
        _, rewards = self.rewards(learner, trajectory)
        return Learner(
            optax.apply_updates(learner.networks, updates),
            optimizer_state,
            learner.encoder.update(trajectory.observation),
            rewards,
            learner.progress.advance(trajectory.reward),
        )

    def rewards(self, learner: Learner, trajectory: Transition) -> tuple[Float[Array, "T N"], RewardScaler | None]:
        """The segment's rewards as the learner sees them, and the scaler that has seen them. [T, N]

        Workers share the scaler, so its running return goes on from another worker's: it is a scale, nothing more.
        """
        soft = soft_rewards(trajectory, at(self.temperature, learner.progress))
        return scale_rewards(learner, soft, self.discount)
