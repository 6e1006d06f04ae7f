"""The recurrent state-space model (Hafner et al. 2019, arXiv 1811.04551, equation 4): a world that is seen in part.

    h_t = f(h_{t-1}, s_{t-1}, a_{t-1})     the deterministic state: what is remembered
    s_t ~ p(s_t | h_t)                     the stochastic state, foretold (the prior) ...
    s_t ~ q(s_t | h_t, o_t)                ... or known from what was seen (the posterior)
    o_t, r_t, over_t ~ p(. | h_t, s_t)     the observation, the reward of the step that led here, whether it is the end

An episode begins with the posterior of its first observation, after a state and an action of zeros. The loss is the
negative bound of equation 3; latent overshooting (section 4) is left out, as in the authors' final agent.
"""

import dataclasses
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from gymnasium import spaces
from jaxtyping import Array, Float, Num

from parnassus.distributions import DiagonalGaussian
from parnassus.encoding import Encoder, zeros
from parnassus.networks import MLP, Network, Torso, activation
from parnassus.normalization import RunningStatistics
from parnassus.rollout import where
from parnassus.types import Key, Metrics, Spec, Step, Transition, Tree, pytree
from parnassus.world_models.interface import Interface

LEAST_STD = 0.1  # of s, so that neither the prior nor the posterior is ever sure: as in the authors' code


class State(NamedTuple):
    """Where the model is."""

    deterministic: Float[Array, "*batch D"]  # h
    stochastic: Float[Array, "*batch S"]  # s

    @property
    def features(self) -> Float[Array, "*batch F"]:
        """(h, s) side by side: what all that is predicted is predicted from."""
        return jnp.concatenate(self, axis=-1)


def nowhere(batch: tuple[int, ...], deterministic_size: int, stochastic_size: int) -> State:
    """The state before an episode's first observation."""
    return State(jnp.zeros((*batch, deterministic_size)), jnp.zeros((*batch, stochastic_size)))


class Recurrence(nn.Module):
    """f: a gated recurrent unit (Cho et al. 2014) after a layer that reads s and a. Few and large products: the gates'
    are made together."""

    size: int  # D
    activation: str

    @nn.compact
    def __call__(self, state: State, action: Float[Array, "*batch n"]) -> Float[Array, "*batch D"]:
        h, s = state
        x = activation(self.activation)(nn.Dense(self.size)(jnp.concatenate([s, action], axis=-1)))
        keep, forget, new = jnp.split(nn.Dense(3 * self.size)(x), 3, axis=-1)
        keep_h, forget_h, new_h = jnp.split(nn.Dense(3 * self.size, use_bias=False)(h), 3, axis=-1)
        candidate = jnp.tanh(new + nn.sigmoid(forget + forget_h) * new_h)
        kept = nn.sigmoid(keep + keep_h)
        return kept * h + (1.0 - kept) * candidate


class Belief(nn.Module):
    """The distribution of s: of h the prior; of h and an embedded observation the posterior."""

    size: int  # S
    hidden: int
    activation: str

    @nn.compact
    def __call__(self, h: Float[Array, "*batch D"], *embedding: Float[Array, "*batch e"]) -> DiagonalGaussian:
        x = sum(embedding, nn.Dense(self.hidden)(h))  # a layer that reads both: the observation's part is given
        mean, spread = jnp.split(nn.Dense(2 * self.size)(activation(self.activation)(x)), 2, axis=-1)
        return DiagonalGaussian(mean, jnp.log(nn.softplus(spread) + LEAST_STD))


class Head(nn.Module):
    """Linear outputs of a torso, or of hidden layers."""

    torso: nn.Module
    outputs: int

    @nn.compact
    def __call__(self, x: Tree) -> Float[Array, "*batch k"]:
        return nn.Dense(self.outputs)(self.torso(x))


@pytree
class Networks:
    """All that is learned by gradients."""

    embedding: Network  # o -> its part in the posterior's hidden layer
    recurrence: Network  # (h, s), a -> h'
    prior: Network  # h -> the distribution of s
    posterior: Network  # h, embedding -> the distribution of s
    observation: Network  # (h, s) -> the mean of o, all its parts as one vector
    reward: Network  # (h, s) -> the mean of r
    ending: Network  # (h, s) -> log(p / (1 - p)), p: the probability that the episode is over


def latent_interface(spec: Spec, num_features: int) -> Interface:
    """That of the model as a simulator: features in place of observations. Raises BadInput for actions other than Box
    and Discrete."""
    features = spaces.Box(-np.inf, np.inf, (num_features,), np.float32)
    return Interface.of(Spec(features, spec.action_space, spec.num_envs))


@pytree
class RecurrentModel:
    """A filter (`observe`), a simulator to plan in (`step`, the signature of an environment's), and their `loss`.

    As a simulator it never shows observations: it is in (h, s), and shows them side by side.
    """

    networks: Networks
    encoder: Encoder
    rewards: RunningStatistics  # rewards are learned in their standard deviations from their mean
    interface: Interface  # of the simulator

    @classmethod
    def create(
        cls,
        key: Key,
        spec: Spec,
        deterministic_size: int = 128,
        stochastic_size: int = 16,
        hidden_sizes: tuple[int, ...] = (128,),
        activation: str = "elu",
        normalize: bool = True,
    ) -> "RecurrentModel":
        """Raises BadInput for spaces that it cannot learn. Images are read by a CNN, and drawn by a linear layer."""
        keys = jax.random.split(key, 7)
        interface = latent_interface(spec, deterministic_size + stochastic_size)
        hidden = (*hidden_sizes, deterministic_size)[0]
        encoder = Encoder.create(spec.observation_space, normalize)

        h, s, x = jnp.zeros(deterministic_size), jnp.zeros(stochastic_size), jnp.zeros(interface.observation_size)
        observation = encoder(zeros(spec.observation_space, (1,)))
        torso = Torso(encoder.are_images, hidden_sizes, activation, initial_weights="normal")
        mlp = MLP(hidden_sizes, activation, initial_weights="normal")
        belief = Belief(stochastic_size, hidden, activation)
        size = sum(leaf.size for leaf in encoder.layout)
        networks = Networks(
            embedding=Network.create(Head(torso, hidden), keys[0], observation),
            recurrence=Network.create(
                Recurrence(deterministic_size, activation), keys[1], State(h, s), jnp.zeros(interface.action_size)
            ),
            prior=Network.create(belief, keys[2], h),
            posterior=Network.create(belief, keys[3], h, jnp.zeros(hidden)),
            observation=Network.create(Head(mlp, size), keys[4], x),
            reward=Network.create(Head(mlp, 1), keys[5], x),
            ending=Network.create(Head(mlp, 1), keys[6], x),
        )
        return cls(networks, encoder, RunningStatistics.zeros(()), interface)

    @property
    def action_space(self) -> gymnasium.Space:
        """The policy's own actions: [-1, 1] where a Box is bounded, Discrete from 0."""
        return self.interface.action_space

    def nowhere(self, *batch: int) -> State:
        """The state before an episode's first observation."""
        return nowhere(batch, self.networks.recurrence.module.size, self.networks.prior.module.size)

    def observe(self, before: State, action: Float[Array, "N n"], observation: Tree, key: Key) -> State:
        """A draw from the posterior after an action, encoded, and what was seen then; all leaves [N, ...].

        At an episode's start `before` is `nowhere` and the action zeros.
        """
        h = self.networks.recurrence(before, action)
        embedding = self.networks.embedding(self.encoder(observation))
        return State(h, self.networks.posterior(h, embedding).sample(key))

    def encode(self, action: Num[Array, "N *a"]) -> Float[Array, "N n"]:
        """Actions as the networks see them; see `Interface`."""
        return jax.vmap(self.interface.encode)(action)

    def decode(self, state: State) -> Float[Array, "*batch o"]:
        """The mean of the observation, as encoded, all its parts as one vector."""
        return self.networks.observation(state.features)

    def step(self, state: State, action: Num[Array, "*a"], key: Key) -> Step:
        """A draw from the prior. It is over where that is likelier than not; no time limit is known."""
        h = self.networks.recurrence(state, self.interface.encode(action))
        after = State(h, self.networks.prior(h).sample(key))
        x = after.features
        over = self.networks.ending(x)[0] > 0.0
        reward = self.rewards.mean + self._reward_std * self.networks.reward(x)[0]
        return Step(after, x, reward, over, jnp.zeros_like(over))

    @property
    def _reward_std(self) -> Float[Array, ""]:
        return jnp.sqrt(self.rewards.variance + 1e-8)

    def update_statistics(self, trajectory: Transition) -> "RecurrentModel":
        """The model after its statistics have also seen this."""
        encoder, rewards = self.encoder.update(trajectory.observation), self.rewards.update(trajectory.reward)
        return dataclasses.replace(self, encoder=encoder, rewards=rewards)

    def loss(
        self,
        segments: Transition,
        noise: Float[Array, "steps B S"],
        observation_std: float | Array,
        reward_std: float | Array,
        free_nats: float | Array,
    ) -> tuple[Float[Array, ""], Metrics]:
        """Equation 3, negative and without constants, a step's mean; leaves [T, B, ...].

            E_q[ -ln p(o_t | h_t, s_t) - ln p(r_t | h_t, s_t) - ln p(over_t | h_t, s_t) ]
                + max(KL[q(s_t | h_t, o_t) || p(s_t | h_t)], free_nats)

        for each o_t that a step led to and, without r and over, each first one of an episode or of a segment.
        `noise` [T + 1, B, S] is standard normal, that of s: an episode's last state and the next one's first may share
        theirs, since no term depends on both.
        """
        networks, batch = self.networks, segments.reward.shape
        done, action = segments.done, jax.vmap(self.encode)(segments.action)

        # Had an episode started at each t: the recurrence sees nothing, so all of these are found at once.
        first = networks.recurrence(self.nowhere(*batch), jnp.zeros_like(action))
        seen = self.encoder(segments.observation)
        first_posterior = networks.posterior(first, networks.embedding(seen))
        starts = State(first, _draw(first_posterior, noise[:-1]))

        def step(state: State, inputs: tuple) -> tuple[State, tuple[State, DiagonalGaussian]]:
            action, embedding, noise, done, fresh = inputs
            h = networks.recurrence(state, action)
            posterior = networks.posterior(h, embedding)
            after = State(h, _draw(posterior, noise))
            return where(done, fresh, after), (after, posterior)

        seen_after = self.encoder(segments.next_observation)
        next_starts = jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), starts)  # that of the last is not used
        inputs = action, networks.embedding(seen_after), noise[1:], done, next_starts
        _, (after, posterior) = jax.lax.scan(step, jax.tree.map(lambda x: x[0], starts), inputs)

        def divergence(posterior: DiagonalGaussian, h: Array) -> Float[Array, "T B"]:
            return posterior.kl(networks.prior(h))

        def surprise(state: State, seen: Tree) -> Float[Array, "T B"]:
            return ((self.decode(state) - _as_vector(seen, 2)) ** 2).sum(-1) / (2.0 * observation_std**2)

        is_start = jnp.concatenate([jnp.ones_like(done[:1]), done[:-1]])
        kl, start_kl = divergence(posterior, after.deterministic), divergence(first_posterior, first)
        reward = (segments.reward - self.rewards.mean) / self._reward_std
        of_step = {
            "observation": surprise(after, seen_after),
            "reward": (networks.reward(after.features)[..., 0] - reward) ** 2 / (2.0 * reward_std**2),
            "ending": optax.sigmoid_binary_cross_entropy(
                networks.ending(after.features)[..., 0], segments.terminated.astype(jnp.float32)
            ),
            "kl": jnp.maximum(kl, free_nats),
        }
        of_start = {"observation": surprise(starts, seen), "kl": jnp.maximum(start_kl, free_nats)}
        losses = {name: loss.mean() for name, loss in of_step.items()}
        for name, loss in of_start.items():
            losses[name] += jnp.where(is_start, loss, 0.0).mean()
        total = jnp.sum(jnp.stack(list(losses.values())))
        return total, {"loss/model": total, **{f"loss/{name}": x for name, x in losses.items()}, "model/kl": kl.mean()}


def _draw(distribution: DiagonalGaussian, noise: Float[Array, "*batch S"]) -> Float[Array, "*batch S"]:
    return distribution.mean + jnp.exp(distribution.log_std) * noise


def _as_vector(observation: Tree, num_batch: int) -> Float[Array, "..."]:
    """The parts of encoded observations side by side, images flattened."""
    leaves = [x.reshape(*x.shape[:num_batch], -1) for x in jax.tree.leaves(observation)]
    return jnp.concatenate(leaves, axis=-1)
