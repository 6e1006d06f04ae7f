"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1801.01290 and 1812.05905, Algorithm 1).

    initialise the policy pi_theta, two critics Q_phi_1, Q_phi_2 and their targets, the temperature alpha, a replay D
    repeat
        run pi_theta for T steps in each of N environments and store them in D           (the collector, `replay.add`)
        for each gradient step, with a minibatch (o, a, r, o') from D:
            a' ~ pi_theta(. | o')
            y <- r + gamma (1 - terminated) [min_j Q_target_j(o', a') - alpha log pi_theta(a' | o')]
            descend  sum_i E[(Q_phi_i(o, a) - y)^2]                                      (1812.05905, equation 5)
            descend  E[alpha log pi_theta(a~ | o) - min_j Q_phi_j(o, a~)],
                     a~ = tanh(mu_theta(o) + sigma_theta(o) noise)                       (equation 7)
            descend  E[-log(alpha) (log pi_theta(a~ | o) + target entropy)]              (equation 18)
            Q_target_i <- Q_target_i + tau (Q_phi_i - Q_target_i)

The temperature's step descends in log(alpha), as in the authors' code, where equation 18 has alpha: it stays positive.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from gymnasium import spaces
from jaxtyping import Array, Float

from parnassus.distributions import parameterize
from parnassus.encoding import Encoder
from parnassus.networks import Critics, Network, Policy, Torso, polyak
from parnassus.off_policy import (
    Experience,
    create_replay,
    example,
    flat,
    improve,
    remember,
    uniform_actions,
)
from parnassus.replay import Replay
from parnassus.schedules import Linear, Progress, at
from parnassus.types import (
    BadInput,
    Count,
    Fraction,
    Key,
    Metrics,
    NonNegative,
    Spec,
    Transition,
    Tree,
    WholeNumber,
    pytree,
)


class Learner(NamedTuple):
    policy: Network  # theta
    critics: Network  # phi_1, phi_2
    target_critics: Network
    log_temperature: Float[Array, ""]  # log(alpha)
    optimizers: tuple[optax.OptState, ...]  # of the policy, the critics and log(alpha)
    replay: Replay  # D
    encoder: Encoder
    progress: Progress


class Behavior(NamedTuple):
    policy: Network
    encoder: Encoder
    progress: Progress


@pytree
class SAC:
    """SAC with two critics and a learned temperature; the defaults are those of the second paper."""

    learning_rate: NonNegative | Linear = 3e-4  # Adam's step size, for the policy and the critics
    num_steps: Count = 1  # T: steps in each environment per iteration
    updates_per_step: Count = 1  # gradient steps per environment step
    minibatch_size: Count = 256  # transitions per gradient step
    replay_size: Count = 1_000_000  # transitions that are kept
    learning_starts: WholeNumber = 1_000  # environment steps with uniformly random actions, before the first update
    discount: Fraction = 0.99  # gamma, of future rewards
    tau: Fraction = 0.005  # the target critics' step towards the critics
    temperature: NonNegative = 1.0  # alpha; the first one if it is learned
    learn_temperature: bool = True  # towards the target entropy
    temperature_learning_rate: NonNegative | Linear | None = None  # Adam's, for the temperature; by default the same
    target_entropy: float | None = None  # in nats; by default minus the number of action dimensions
    overlap: bool = False  # on host environments: learn in a thread while the next steps are taken, an update late
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = (256, 256)  # of the policy and of each critic
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "relu"  # after each hidden layer
    initial_weights: Literal["normal", "uniform"] = "normal"  # of variance 1 / fan-in, or within 1 / sqrt(fan-in)
    network: nn.Module | None = None  # (encoded observation, then for critics the action) -> features

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if the action space is not a Box."""
        if not isinstance(spec.action_space, spaces.Box):
            raise BadInput(f"SAC needs a continuous (Box) action space, not {spec.action_space}; see DiscreteSAC")
        policy_key, critic_key = jax.random.split(key)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        one = example(spec)
        observation = encoder(one.observation)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation, self.initial_weights)
        policy = Network.create(
            Policy(torso, parameterize(spec.action_space, squash=True), std="state"), policy_key, observation
        )
        critics = Network.create(
            Critics((torso.clone(), torso.clone()), self.initial_weights), critic_key, observation, flat(one.action)
        )
        log_temperature = jnp.log(jnp.asarray(self.temperature))
        replay = create_replay(spec, self.replay_size)
        progress = Progress.start()
        optimizers = tuple(
            self.optimizer(progress).init(parameters) for parameters in (policy, critics, log_temperature)
        )
        target = jax.tree.map(jnp.copy, critics)  # a copy: donated buffers must not be shared
        return Learner(policy, critics, target, log_temperature, optimizers, replay, encoder, progress)

    def behavior(self, learner: Learner) -> Behavior:
        """The policy, and how far training is: the first actions are random."""
        return Behavior(learner.policy, learner.encoder, learner.progress)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Tree, key: Key, explore: bool) -> tuple:
        """A draw from the policy (uniform at first), or tanh of its mean."""
        distribution = behavior.policy(behavior.encoder(observation))
        if not explore:
            return distribution.mode(), memory, {}
        policy_key, uniform_key = jax.random.split(key)
        action = distribution.sample(policy_key)
        starting = behavior.progress.steps < self.learning_starts
        return jnp.where(starting, uniform_actions(uniform_key, action), action), memory, {}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """Store the trajectory, then `updates_per_step` gradient steps for each of its steps."""
        learner = remember(learner, trajectory, self.discount)
        num_updates = trajectory.reward.size * self.updates_per_step
        ready = learner.progress.steps >= jnp.maximum(self.learning_starts, 1)
        return improve(learner, self.gradient_step, key, num_updates, ready)

    def gradient_step(self, learner: Learner, replay: Replay, key: Key) -> tuple[Learner, Metrics]:
        """One gradient step on a fresh minibatch."""
        sample_key, noise_key = jax.random.split(key)
        return self.update(learner, replay.sample(sample_key, self.minibatch_size), noise_key)

    def update(self, learner: Learner, batch: Experience, key: Key) -> tuple[Learner, Metrics]:
        """One gradient step of everything, in the order of Algorithm 1."""
        next_key, action_key = jax.random.split(key)
        observation, next_observation = learner.encoder(batch.observation), learner.encoder(batch.next_observation)
        temperature = jnp.exp(learner.log_temperature)
        policy_state, critics_state, temperature_state = learner.optimizers
        optimizer = self.optimizer(learner.progress)

        next_action, next_log_prob = learner.policy(next_observation).sample_and_log_prob(next_key)
        next_q = learner.target_critics(next_observation, flat(next_action)).min(-1) - temperature * next_log_prob
        target = batch.reward + batch.discount * next_q

        def critic_loss(critics: Network) -> tuple[Array, Array]:
            q = critics(observation, flat(batch.action))
            return ((q - target[:, None]) ** 2).sum(-1).mean(), q.mean()

        (value_loss, q_mean), grads = jax.value_and_grad(critic_loss, has_aux=True)(learner.critics)
        updates, critics_state = optimizer.update(grads, critics_state)
        critics = optax.apply_updates(learner.critics, updates)

        def policy_loss(policy: Network) -> tuple[Array, Array]:
            action, log_prob = policy(observation).sample_and_log_prob(action_key)
            q = critics(observation, flat(action)).min(-1)
            return (temperature * log_prob - q).mean(), -log_prob.mean()

        (loss, entropy), grads = jax.value_and_grad(policy_loss, has_aux=True)(learner.policy)
        updates, policy_state = optimizer.update(grads, policy_state)
        policy = optax.apply_updates(learner.policy, updates)

        log_temperature = learner.log_temperature
        if self.learn_temperature:
            target_entropy = -batch.action[0].size if self.target_entropy is None else self.target_entropy
            # d/d log(alpha) of E[-log(alpha) (log pi + target entropy)]: alpha falls while the entropy is too high.
            updates, temperature_state = self.temperature_optimizer(learner.progress).update(
                entropy - target_entropy, temperature_state
            )
            log_temperature = optax.apply_updates(log_temperature, updates)

        return learner._replace(
            policy=policy,
            critics=critics,
            target_critics=polyak(learner.target_critics, critics, self.tau),
            log_temperature=log_temperature,
            optimizers=(policy_state, critics_state, temperature_state),
        ), {
            "loss/policy": loss,
            "loss/value": value_loss,
            "value/mean": q_mean,
            "policy/entropy": entropy,
            "policy/temperature": temperature,
        }

    def optimizer(self, progress: Progress) -> optax.GradientTransformation:
        """Adam."""
        return optax.adam(at(self.learning_rate, progress))

    def temperature_optimizer(self, progress: Progress) -> optax.GradientTransformation:
        """Adam, with a step size of its own where there is one."""
        rate = self.temperature_learning_rate
        return self.optimizer(progress) if rate is None else optax.adam(at(rate, progress))
