"""What the on-policy methods share: a stochastic policy, a value function, and the advantages they are taught with."""

from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from gymnasium import spaces
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from parnassus.distributions import Distribution, parameterize
from parnassus.encoding import Encoder, zeros
from parnassus.networks import MLP, ActionValue, Network, Policy, PolicyAndValue, Value
from parnassus.normalization import RewardScaler
from parnassus.returns import generalized_advantages
from parnassus.types import BadInput, Key, Spec, Transition, Tree, pytree


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
    return Network(_with_log_std(policy.params, initial_log_std), policy.module)


def create_value(key: Key, spec: Spec, encoder: Encoder, torso: nn.Module) -> Network:
    """V(o), a network of its own."""
    return Network.create(Value(torso), key, encoder(zeros(spec.observation_space, (1,))))


def create_action_value(
    key: Key, spec: Spec, encoder: Encoder, torso: nn.Module, initial_weights: str = "normal"
) -> Network:
    """Q(o, a), a network of its own. Raises BadInput for actions that are neither Discrete nor a Box."""
    space = spec.action_space
    if not isinstance(space, spaces.Discrete | spaces.Box):
        raise BadInput(f"an action value needs a Discrete or Box action space, not {space}")
    num_actions = int(space.n) if isinstance(space, spaces.Discrete) else None
    module = ActionValue(torso, num_actions, len(space.shape or ()), initial_weights)
    observation = encoder(zeros(spec.observation_space, (1,)))
    return Network.create(module, key, observation, jnp.asarray(zeros(space, (1,))))


class SeparateNetworks(NamedTuple):
    """A policy and a value function that share nothing; called with encoded observations for both at once."""

    policy: Network
    value: Network

    def __call__(self, observation: Tree) -> tuple[Distribution, Float[Array, "*batch"]]:
        """pi(. | o) and V(o)."""
        return self.policy(observation), self.value(observation)


@pytree
class SharedNetworks:
    """A policy and a value function with one torso; called with encoded observations for both at once."""

    both: Network  # of a PolicyAndValue

    def __call__(self, observation: Tree) -> tuple[Distribution, Float[Array, "*batch"]]:
        """pi(. | o) and V(o)."""
        return self.both(observation)

    @property
    def policy(self) -> Network:
        """The policy alone, an ordinary network."""
        return self._head("policy")

    @property
    def value(self) -> Network:
        """The value function alone, an ordinary network."""
        return self._head("value")

    def _head(self, name: str) -> Network:
        params = self.both.params
        torso = {"torso": params["torso"]} if "torso" in params else {}  # one without layers has no parameters
        return Network({**torso, **params[name]}, _on_its_own(self.both.module, name))


@lru_cache
def _on_its_own(module: PolicyAndValue, head: str) -> nn.Module:
    """One head with the torso under it. Cached: a host loop asks for it in every iteration."""
    return getattr(module, head).clone(torso=module.torso)


def create_networks(
    key: Key,
    spec: Spec,
    encoder: Encoder,
    torso: nn.Module,
    initial_log_std: float | Array,
    learned_std: bool,
    shared: bool,
) -> SeparateNetworks | SharedNetworks:
    """pi(a | o) and V(o), on one torso or on one each; see `create_policy`. Raises BadInput as it does."""
    if not shared:
        policy_key, value_key = jax.random.split(key)
        policy = create_policy(policy_key, spec, encoder, torso, initial_log_std, learned_std)
        return SeparateNetworks(policy, create_value(value_key, spec, encoder, torso))
    features = MLP(())  # the heads see what the torso made
    head = Policy(features, parameterize(spec.action_space), std="free" if learned_std else "fixed")
    both = Network.create(
        PolicyAndValue(torso, head, Value(features)), key, encoder(zeros(spec.observation_space, (1,)))
    )
    return SharedNetworks(
        Network({**both.params, "policy": _with_log_std(both.params["policy"], initial_log_std)}, both.module)
    )


def _with_log_std(params: Tree, initial_log_std: float | Array) -> Tree:
    """A policy's parameters with the log standard deviation set, if it has one. As data: the module is static."""
    if "log_std" not in params:
        return params
    return {**params, "log_std": jnp.full_like(params["log_std"], initial_log_std)}


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


def fit_value(
    value: Network,
    optimizer: optax.GradientTransformation,
    optimizer_state: optax.OptState,
    observation: Tree,
    target: Float[Array, "B"],
    key: Key,
    num_epochs: int,
    minibatch_size: int,
) -> tuple[Network, optax.OptState]:
    """V after a regression on E[(V(o) - target)^2], by epochs of minibatches; observations [B, ...] are encoded.

    The optimizer is one of all parameters in a vector, `ravel_pytree(value)[0]`. `minibatch_size` must divide B.
    """

    # All parameters in one vector: small networks are bound by the number of kernels.
    parameters, value_of = ravel_pytree(value)

    def step(carry: tuple, minibatch: tuple) -> tuple[tuple, None]:
        parameters, state = carry
        here, wanted = minibatch
        grads = jax.grad(lambda parameters: ((value_of(parameters)(here) - wanted) ** 2).mean())(parameters)
        updates, state = optimizer.update(grads, state)
        return (parameters + updates, state), None

    def epoch(carry: tuple, epoch_key: Key) -> tuple[tuple, None]:
        order = random_order(epoch_key, target.size)
        shuffled = jax.tree.map(lambda x: x[order].reshape(-1, minibatch_size, *x.shape[1:]), (observation, target))
        return jax.lax.scan(step, carry, shuffled)

    carry = parameters, optimizer_state
    (parameters, optimizer_state), _ = jax.lax.scan(epoch, carry, jax.random.split(key, num_epochs))
    return value_of(parameters), optimizer_state


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


def check_minibatches(minibatch_size: int, num_steps: int, spec: Spec) -> None:
    """Raises BadInput for minibatches that do not divide an iteration."""
    batch_size = num_steps * spec.num_envs
    if batch_size % minibatch_size:
        raise BadInput(
            f"minibatch_size={minibatch_size} must divide num_steps * num_envs = "
            f"{num_steps} * {spec.num_envs} = {batch_size}"
        )


def explained_variance(value: Float[Array, "*batch"], target: Float[Array, "*batch"]) -> Float[Array, ""]:
    """1 - Var(target - value) / Var(target): 1 is perfect, 0 no better than a constant."""
    return 1.0 - jnp.var(target - value) / (jnp.var(target) + 1e-8)
