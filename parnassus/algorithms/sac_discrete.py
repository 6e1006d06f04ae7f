"""Soft actor-critic for discrete actions (Christodoulou 2019, arXiv 1910.07207, Algorithm 1).

    initialise the policy pi_theta, two critics Q_phi_1, Q_phi_2 and their targets, the temperature alpha, a replay D
    repeat
        run pi_theta for T steps in each of N environments and store them in D           (the collector, `remember`)
        for each gradient step, with a minibatch (o, a, r, o') from D:
            V(o') <- sum_a' pi_theta(a' | o') [min_i Q_target_i(o', a') - alpha log pi_theta(a' | o')]
            y <- r + gamma (1 - terminated) V(o')                                        (equation 10)
            descend  sum_i E[(Q_phi_i(o, a) - y)^2]
            descend  E[sum_a pi_theta(a | o) (alpha log pi_theta(a | o) - min_i Q_phi_i(o, a))]       (equation 12)
            descend  E[sum_a pi_theta(a | o) (-log(alpha)) (log pi_theta(a | o) + target entropy)]    (equation 11)
            Q_target_i <- Q_target_i + tau (Q_phi_i - Q_target_i)

SAC where expectations over actions are sums, so that nothing is reparameterised. As in SAC, the temperature's step
descends in log(alpha) where equation 11 has alpha.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from gymnasium import spaces
from jaxtyping import Array, Float

from parnassus.distributions import parameterize
from parnassus.encoding import Encoder
from parnassus.networks import ActionValues, Network, Policy, Torso, pick, polyak
from parnassus.off_policy import Experience, create_replay, example, improve, remember
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
    critics: tuple[Network, Network]  # phi_1, phi_2
    target_critics: tuple[Network, Network]
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
class DiscreteSAC:
    """SAC with a categorical policy, two critics and a learned temperature; Discrete actions."""

    learning_rate: NonNegative | Linear = 3e-4  # Adam's step size, for the policy and the critics
    num_steps: Count = 4  # T: steps in each environment per iteration
    num_updates: Count = 1  # gradient steps per iteration
    minibatch_size: Count = 64  # transitions per gradient step
    replay_size: Count = 100_000  # transitions that are kept
    learning_starts: WholeNumber = 1_000  # environment steps with uniformly random actions, before the first update
    discount: Fraction = 0.99  # gamma, of future rewards
    tau: Fraction = 0.005  # the target critics' step towards the critics
    temperature: NonNegative = 1.0  # alpha; the first one if it is learned
    learn_temperature: bool = True  # towards the target entropy
    temperature_learning_rate: NonNegative | Linear | None = None  # Adam's, for the temperature; by default the same
    target_entropy_share: Fraction = 0.98  # the target entropy, as a share of a uniform policy's
    overlap: bool = False  # on host environments: learn in a thread while the next steps are taken, an update late
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = (256, 256)  # of the policy and of each critic
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "relu"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features, in place of the default network

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if the action space is not Discrete."""
        if not isinstance(spec.action_space, spaces.Discrete):
            raise BadInput(
                f"DiscreteSAC needs a Discrete action space, not {spec.action_space}; for a Box there is SAC"
            )
        policy_key, *critic_keys = jax.random.split(key, 3)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation, initial_weights="normal")
        observation = encoder(example(spec).observation)
        policy = Network.create(Policy(torso, parameterize(spec.action_space)), policy_key, observation)
        values = ActionValues(torso.clone(), int(spec.action_space.n))
        first, second = (Network.create(values, critic_key, observation) for critic_key in critic_keys)
        critics = (first, second)
        log_temperature = jnp.log(jnp.asarray(self.temperature))
        progress = Progress.start()
        rule = self.optimizer(progress)
        return Learner(
            policy,
            critics,
            jax.tree.map(jnp.copy, critics),  # a copy: donated buffers must not be shared
            log_temperature,
            tuple(rule.init(parameters) for parameters in (policy, critics, log_temperature)),
            create_replay(spec, self.replay_size),
            encoder,
            progress,
        )

    def behavior(self, learner: Learner) -> Behavior:
        """The policy, and how far training is: the first actions are random."""
        return Behavior(learner.policy, learner.encoder, learner.progress)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Tree, key: Key, explore: bool) -> tuple:
        """A draw from the policy (uniform at first), or its most probable action."""
        distribution = behavior.policy(behavior.encoder(observation))
        if not explore:
            return distribution.mode(), memory, {}
        policy_key, uniform_key = jax.random.split(key)
        action = distribution.sample(policy_key)
        uniform = jax.random.randint(uniform_key, action.shape, 0, distribution.logits.shape[-1])
        return jnp.where(behavior.progress.steps < self.learning_starts, uniform, action), memory, {}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """Store the trajectory, then `num_updates` gradient steps."""
        learner = remember(learner, trajectory, self.discount)
        ready = learner.progress.steps >= jnp.maximum(self.learning_starts, 1)
        return improve(learner, self.gradient_step, key, self.num_updates, ready)

    def gradient_step(self, learner: Learner, replay: Replay, key: Key) -> tuple[Learner, Metrics]:
        """One gradient step on a fresh minibatch."""
        return self.update(learner, replay.sample(key, self.minibatch_size))

    def update(self, learner: Learner, batch: Experience) -> tuple[Learner, Metrics]:
        """One gradient step of everything, in the order of Algorithm 1."""
        observation, next_observation = learner.encoder(batch.observation), learner.encoder(batch.next_observation)
        temperature = jnp.exp(learner.log_temperature)
        policy_state, critics_state, temperature_state = learner.optimizers
        rule = self.optimizer(learner.progress)

        next_log_pi = jax.nn.log_softmax(learner.policy(next_observation).logits)
        next_q = jnp.minimum(*(critic(next_observation) for critic in learner.target_critics))
        next_value = (jnp.exp(next_log_pi) * (next_q - temperature * next_log_pi)).sum(-1)
        target = batch.reward + batch.discount * next_value

        def critic_loss(critics: tuple[Network, Network]) -> tuple[Array, Array]:
            q = jnp.stack([pick(critic(observation), batch.action) for critic in critics])
            return ((q - target[None]) ** 2).sum(0).mean(), q.mean()

        (value_loss, q_mean), grads = jax.value_and_grad(critic_loss, has_aux=True)(learner.critics)
        updates, critics_state = rule.update(grads, critics_state)
        critics = optax.apply_updates(learner.critics, updates)
        q = jnp.minimum(*(critic(observation) for critic in critics))

        def policy_loss(policy: Network) -> tuple[Array, Array]:
            log_pi = jax.nn.log_softmax(policy(observation).logits)
            pi = jnp.exp(log_pi)
            return (pi * (temperature * log_pi - q)).sum(-1).mean(), -(pi * log_pi).sum(-1).mean()

        (loss, entropy), grads = jax.value_and_grad(policy_loss, has_aux=True)(learner.policy)
        updates, policy_state = rule.update(grads, policy_state)
        policy = optax.apply_updates(learner.policy, updates)

        log_temperature = learner.log_temperature
        if self.learn_temperature:
            target_entropy = self.target_entropy_share * math.log(q.shape[-1])
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
