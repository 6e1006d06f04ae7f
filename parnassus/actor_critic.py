"""What the on-policy methods share: a stochastic policy, a value function, and the advantages they are taught with."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from parnassus.distributions import Distribution, parameterize
from parnassus.encoding import Encoder, zeros
from parnassus.networks import Network, Policy, Value
from parnassus.normalization import RewardScaler
from parnassus.returns import generalized_advantages
from parnassus.types import Key, Spec, Transition, Tree


class Behavior(NamedTuple):
    """What acting needs: the policy, and the statistics it reads observations with."""

    policy: Network
    encoder: Encoder


class Batch(NamedTuple):
    """What an objective reads of transitions; leaves [B, ...]."""

    observation: Tree  # encoded
    action: Tree
    log_prob: Float[Array, "B"]  # log pi_old(a_t | o_t)
    advantage: Float[Array, "B"]
    target: Float[Array, "B"]  # for V(o_t)


@runtime_checkable
class ActorCritic(Protocol):
    """A learner with these parts, and more."""

    @property
    def value(self) -> Network: ...

    @property
    def encoder(self) -> Encoder: ...

    @property
    def rewards(self) -> RewardScaler | None: ...


def create_policy(
    key: Key, spec: Spec, encoder: Encoder, torso: nn.Module, initial_log_std: float | Array, learned_std: bool
) -> Network:
    """pi(a | o), nearly uniform or centred at first. A torso of no layers makes it linear in the encoded observation.

    A Gaussian's log standard deviations start at `initial_log_std`, and stay there without `learned_std`.
    Raises BadInput for an action space without a policy here.
    """
    module = Policy(torso, parameterize(spec.action_space), std="free" if learned_std else "fixed")
    policy = Network.create(module, key, encoder(zeros(spec.observation_space, (1,))))
    if "log_std" not in policy.params:
        return policy
    # Set here, as data: the module is static.
    log_std = jnp.full_like(policy.params["log_std"], initial_log_std)
    return Network({**policy.params, "log_std": log_std}, policy.module)


def create_value(key: Key, spec: Spec, encoder: Encoder, torso: nn.Module) -> Network:
    """V(o), a network of its own."""
    return Network.create(Value(torso), key, encoder(zeros(spec.observation_space, (1,))))


def act(behavior: Behavior, observation: Tree, key: Key, explore: bool) -> tuple[Tree, dict[str, Array]]:
    """A draw from the policy with its log-probability [N], or the policy's mode."""
    distribution: Distribution = behavior.policy(behavior.encoder(observation))
    if not explore:
        return distribution.mode(), {}
    action, log_prob = distribution.sample_and_log_prob(key)
    return action, {"log_prob": log_prob}


def soft_rewards(trajectory: Transition, temperature: float | Array) -> Transition:
    """The trajectory with the rewards of maximum-entropy RL, r_{t+1} - alpha log pi(a_t | o_t).

    Their return is sum_t gamma^t (r_{t+1} + alpha H(pi(. | o_t))) in expectation: the entropy of every later state is
    part of what an action is worth, so values are soft values, and the best policy is softmax(Q_soft / alpha)
    (Ziebart 2010; Haarnoja et al. 2018, equation 1). An entropy bonus c H(pi(. | o_t)) beside the loss is not the same:
    it makes each state's policy more random, and no policy seeks states for the randomness that they allow.

    The log-probability of the action taken, not the entropy, because the policy gradient then needs no other term
    (E[grad log pi] = 0), and because advantages of the best policy are 0 for every action. With alpha = 0 nothing
    changes. Normalising rewards comes after this, so alpha is in units of the environment's reward.
    """
    return trajectory._replace(reward=trajectory.reward - temperature * trajectory.extras["log_prob"])


def scale_rewards(
    learner: ActorCritic, trajectory: Transition, discount: float | Array
) -> tuple[Float[Array, "T N"], RewardScaler | None]:
    """The trajectory's rewards as the learner sees them, and the scaler that has now seen them; None: unchanged."""
    if learner.rewards is None:
        return trajectory.reward, None
    scaler = learner.rewards.update(trajectory.reward, trajectory.done, discount)
    return scaler.scale(trajectory.reward), scaler


def estimate(
    learner: ActorCritic,
    trajectory: Transition,
    reward: Float[Array, "T N"],
    discount: float | Array,
    gae_lambda: float | Array,
) -> Batch:
    """Generalised advantages, and targets A_t + V(o_t) for the value function, all T * N transitions in a row.

    A time limit is bootstrapped with the value of the true successor.
    """
    observation = learner.encoder(trajectory.observation)
    value = learner.value(observation)
    next_value = learner.value(learner.encoder(trajectory.next_observation))
    advantage = generalized_advantages(
        reward, value, next_value, trajectory.terminated, trajectory.truncated, discount, gae_lambda
    )
    return flatten(Batch(observation, trajectory.action, trajectory.extras["log_prob"], advantage, advantage + value))


def flatten(trajectory: Tree) -> Tree:
    """Leaves [T, N, ...] -> [T * N, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), trajectory)


def random_order(key: Key, size: int) -> Int[Array, "B"]:
    """A random permutation of 0 ... size - 1.

    Each index gets random bits in front of it, and all are sorted: an eighth of the time, on the CPU, of
    `jax.random.permutation`, which sorts pairs, several times. That is called where so few bits would be left that
    many were equal.
    """
    index_bits = (size - 1).bit_length()
    if index_bits > 16:
        return jax.random.permutation(key, size)
    noise = jax.random.bits(key, (size,)) >> index_bits << index_bits
    mixed = jnp.sort(noise | jnp.arange(size, dtype=jnp.uint32))
    return (mixed & (2**index_bits - 1)).astype(jnp.int32)


def explained_variance(value: Float[Array, "B"], target: Float[Array, "B"]) -> Float[Array, ""]:
    """1 - Var(target - value) / Var(target): 1 is perfect, 0 no better than a constant."""
    return 1.0 - jnp.var(target - value) / (jnp.var(target) + 1e-8)
