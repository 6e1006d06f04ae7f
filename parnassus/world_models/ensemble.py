"""A probabilistic ensemble as a model of the world (Chua et al. 2018, arXiv 1805.12114, section 4; Janner et al. 2019).

    member i:  o' - o, r  ~  N(mu_i(o, a), diag(sigma_i^2(o, a))),     terminated  ~  Bernoulli(p_i(o, a))
    descend  1/2 ((y - mu_i) / sigma_i)^2 + log sigma_i                  the negative log-likelihood of y = (o' - o, r)
             - terminated log p_i - (1 - terminated) log(1 - p_i)
             + c (max log sigma_i^2 - min log sigma_i^2)                 the bounds of the variance, which are learned

on a bootstrap of the replay for each member, with inputs and targets scaled to mean 0 and variance 1. sigma is what the
world leaves open; that members disagree says what they have not seen. A member has the `step` of an environment.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Num

from parnassus.networks import MLP, Network
from parnassus.off_policy import Experience
from parnassus.replay import Replay
from parnassus.types import Count, Key, Metrics, NonNegative, Spec, Step, pytree
from parnassus.world_models.fitting import Fitting
from parnassus.world_models.interface import Interface


class Outputs(NamedTuple):
    """What a network says of one transition, in scaled units; or a member, in the world's."""

    mean: Float[Array, "*batch D"]  # of the change of each number of the observation, and of the reward; D = S + 1
    variance: Float[Array, "*batch D"] | None  # None: it says nothing of noise
    termination: Float[Array, "*batch"] | None  # the logit; None: nothing of terminations either


class Gaussian(nn.Module):
    """Features -> `Outputs` with a variance between two learned bounds (Chua et al. 2018, appendix A.1)."""

    torso: nn.Module
    size: int  # D
    learn_termination: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*batch f"]) -> Outputs:
        highest = self.param("max_log_variance", nn.initializers.constant(0.5), (self.size,))
        lowest = self.param("min_log_variance", nn.initializers.constant(-10.0), (self.size,))
        y = nn.Dense(2 * self.size + self.learn_termination)(self.torso(x))
        mean, unbounded = y[..., : self.size], y[..., self.size : 2 * self.size]
        # The paper's log sigma^2 = lowest + softplus(highest - softplus(highest - y) - lowest), with exp(softplus(x)) =
        # 1 + exp(x) used twice: one exponential for five.
        variance = jnp.exp(lowest) + jnp.exp(highest) * jax.nn.sigmoid(unbounded - highest)
        return Outputs(mean, variance, y[..., -1] if self.learn_termination else None)


@pytree
class Scale:
    """To mean 0 and variance 1; the standard deviation of what was always the same is 0, and it is not stretched."""

    mean: Float[Array, "*E F"]
    std: Float[Array, "*E F"]

    @classmethod
    def of(cls, rows: Float[Array, "C F"], mask: Bool[Array, "C"]) -> "Scale":
        """The scale of the rows in `mask`; counted from the first, so that what is always the same is so exactly."""
        weight = mask / jnp.maximum(mask.sum(), 1)
        change = rows - rows[:1]
        mean = weight @ change
        std = jnp.sqrt(weight @ (change - mean[None]) ** 2)
        return cls(rows[0] + mean, std)

    @classmethod
    def unit(cls, size: int) -> "Scale":
        """Leaves everything as it is."""
        return cls(jnp.zeros(size), jnp.ones(size))

    def normalize(self, x: Float[Array, "F"]) -> Float[Array, "F"]:
        """(x - mean) / std."""
        return (x - self.mean) / jnp.where(self.std > 0.0, self.std, 1.0)


@pytree
class Member:
    """One network as a model of the world: what a planner plans in. Inside an ensemble its leaves are [E, ...]."""

    network: Network
    inputs: Scale
    targets: Scale
    terminates: Bool[Array, "*E"]  # whether any termination was seen: what nobody has seen is not imagined
    interface: Interface

    @property
    def action_space(self) -> gymnasium.Space:
        """The policy's own actions."""
        return self.interface.action_space

    def scaled_outputs(self, observation: Float[Array, "S"], action: Num[Array, "*a"]) -> Outputs:
        """What the network itself says."""
        x = jnp.concatenate([observation.astype(jnp.float32), self.interface.encode(action)])
        return self.network(self.inputs.normalize(x))

    def predict(self, observation: Float[Array, "S"], action: Num[Array, "*a"]) -> Outputs:
        """The same in the world's units: the mean and the variance of (o', r).

        What was always the same is always predicted: a reward of 1 a step stays 1 wherever a planner looks.
        """
        mean, variance, termination = self.scaled_outputs(observation, action)
        here = jnp.append(observation.astype(jnp.float32), 0.0)
        mean = here + self.targets.mean + self.targets.std * mean
        if variance is not None:
            variance = variance * jnp.maximum(self.targets.std, 1e-6) ** 2
        return Outputs(mean, variance, termination)

    def step(self, state: Float[Array, "S"], action: Num[Array, "*a"], key: Key) -> Step:
        """A draw of what follows. The reward is its mean, for nothing later depends on its noise; no limit is known."""
        noise_key, end_key = jax.random.split(key)
        noise = _drawn_once(jax.random.normal(noise_key, state.shape))
        end = jax.random.uniform(end_key)
        outputs = self.predict(state, action)
        after = outputs.mean[:-1]
        if outputs.variance is not None:
            after = after + jnp.sqrt(outputs.variance[:-1]) * noise
        terminated = end < self.termination_probability(outputs)
        return Step(after, after, outputs.mean[-1], terminated, jnp.zeros((), bool))

    def termination_probability(self, outputs: Outputs) -> Float[Array, ""]:
        """0 where no termination was seen; 0 or 1 in a model without noise."""
        if outputs.termination is None:
            return jnp.zeros(())
        if outputs.variance is None:
            probability = (outputs.termination > 0.0).astype(jnp.float32)
        else:
            probability = jax.nn.sigmoid(outputs.termination)
        return jnp.where(self.terminates, probability, 0.0)

    def score(self, batch: Experience) -> Float[Array, ""]:
        """What a batch [B, ...] costs: per number, the negative log-likelihood or the squared error in scaled units,
        and the cross-entropy of the terminations."""
        outputs = jax.vmap(self.scaled_outputs)(batch.observation, batch.action)
        target = jax.vmap(self.targets.normalize)(changes(batch))
        if outputs.variance is None:
            cost = ((target - outputs.mean) ** 2).mean()
        else:
            cost = negative_log_likelihood(outputs.mean, outputs.variance, target).mean()
        if outputs.termination is not None:
            terminated = (batch.discount == 0.0).astype(jnp.float32)
            cost += optax.sigmoid_binary_cross_entropy(outputs.termination, terminated).mean()
        return cost


@pytree
class EnsembleModel:
    """Models of the world side by side, and how far their fitting is."""

    members: Member  # leaves [E, ...]
    optimizer: optax.OptState  # [E, ...]

    @property
    def num_members(self) -> int:
        """E."""
        return self.members.terminates.shape[0]

    def predict(self, observation: Float[Array, "B S"], action: Num[Array, "B ..."]) -> Outputs:
        """What each member says of (o', r) in the world's units, leaves [E, B, ...]."""
        return predict(self.members, observation, action)


@pytree
class Ensemble:
    """Gaussian networks, each with its own bootstrap; Box observations of one dimension, Discrete or Box actions."""

    num_members: Count = 5  # E
    hidden_sizes: tuple[int, ...] = (200, 200, 200)  # of each member
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "swish"  # after each hidden layer
    learn_termination: bool = True  # whether an episode ends in o', too
    bound_penalty: NonNegative = 0.01  # c: pulls the bounds of the variance together
    fitting: Fitting = Fitting()

    def create(self, key: Key, spec: Spec) -> EnsembleModel:
        """A model before any fitting. Raises BadInput for spaces that it cannot learn."""
        torso = MLP(self.hidden_sizes, self.activation, initial_weights="normal")
        size = Interface.of(spec).observation_size + 1
        return create(key, spec, Gaussian(torso, size, self.learn_termination), self.num_members, self.fitting)

    def fit(self, model: EnsembleModel, replay: Replay, key: Key) -> tuple[EnsembleModel, Metrics]:
        """The model after learning from a replay of one-step `Experience`, where a discount of 0 is a termination."""

        def loss(member: Member, batch: Experience) -> Array:
            bounds = member.network.params
            spread = (bounds["max_log_variance"] - bounds["min_log_variance"]).mean()
            return member.score(batch) + self.bound_penalty * spread

        return fit(model, replay, key, self.fitting, loss)


def _drawn_once(noise: Float[Array, "S"]) -> Float[Array, "S"]:
    """Itself, but not drawn anew in the loop over a planner's sequences, which share it.

    XLA fuses draws into the loop that uses them, through barriers too on the CPU; into a product it does not.
    """
    return jnp.dot(noise, jnp.eye(noise.size), precision="highest")


def create(key: Key, spec: Spec, module: nn.Module, num_members: int, fitting: Fitting) -> EnsembleModel:
    """Members with networks of this kind, each with weights of its own."""
    interface = Interface.of(spec)
    num_inputs, num_outputs = interface.observation_size + interface.action_size, interface.observation_size + 1

    def one(key: Key) -> Member:
        network = Network.create(module, key, jnp.zeros(num_inputs))
        return Member(network, Scale.unit(num_inputs), Scale.unit(num_outputs), jnp.zeros((), bool), interface)

    members = jax.vmap(one)(jax.random.split(key, num_members))
    return EnsembleModel(members, fitting.init(members.network))


def fit(
    model: EnsembleModel, replay: Replay, key: Key, fitting: Fitting, loss: Callable[[Member, Experience], Array]
) -> tuple[EnsembleModel, Metrics]:
    """The model after descending `loss` for each member; what `Member.score` says of it decides when to stop."""
    interface = model.members.interface
    inputs, targets, terminates = scales(replay, interface)
    member = lambda network: Member(network, inputs, targets, terminates, interface)  # noqa: E731
    network, optimizer, lowest, looks = fitting(
        model.members.network,
        model.optimizer,
        lambda network, batch: loss(member(network), batch),
        lambda network, batch: member(network).score(batch),
        replay,
        key,
    )
    members = jax.vmap(member)(network)
    metrics = {
        "model/loss": lowest.mean(),
        "model/disagreement": disagreement(members, fitting.held_out(replay)),
        "model/looks": looks.astype(jnp.float32),
    }
    return EnsembleModel(members, optimizer), metrics


def disagreement(members: Member, batch: Experience) -> Float[Array, ""]:
    """The standard deviation of the members' means, in those of the targets: what there is to be learned yet."""
    each = lambda member: jax.vmap(member.scaled_outputs)(batch.observation, batch.action).mean  # noqa: E731
    return jax.vmap(each)(members).std(0).mean()


def scales(replay: Replay, interface: Interface) -> tuple[Scale, Scale, Bool[Array, ""]]:
    """Of a member's inputs and of its targets, and whether the replay holds any termination."""
    rows: Experience = replay.storage
    there = jnp.arange(replay.capacity) < replay.size
    actions = jax.vmap(interface.encode)(rows.action)
    inputs = jnp.concatenate([rows.observation.astype(jnp.float32), actions], axis=-1)
    terminates = ((rows.discount == 0.0) & there).any()
    return Scale.of(inputs, there), Scale.of(changes(rows), there), terminates


def predict(members: Member, observation: Float[Array, "B S"], action: Num[Array, "B ..."]) -> Outputs:
    """What each member says of (o', r) in the world's units, leaves [E, B, ...]."""
    one_member = lambda member: jax.vmap(member.predict)(observation, action)  # noqa: E731
    return jax.vmap(one_member)(members)


def negative_log_likelihood(
    mean: Float[Array, "*b"], variance: Float[Array, "*b"], target: Float[Array, "*b"]
) -> Float[Array, "*b"]:
    """-log N(target; mean, variance), number by number."""
    return 0.5 * ((target - mean) ** 2 / variance + jnp.log(2.0 * np.pi * variance))


def changes(batch: Experience) -> Float[Array, "B D"]:
    """What is to be predicted of transitions: (o' - o, r)."""
    change = batch.next_observation.astype(jnp.float32) - batch.observation.astype(jnp.float32)
    return jnp.concatenate([change, batch.reward[:, None]], axis=-1)
