"""Inverse models, in both readings of the word.

    which action led from o to o'        a     =  f(o, o')      descend  |a - f|^2 (Box) or -log f(a | o, o') (Discrete)
    which state came before o' under a   o, r  =  g(o', a)      descend  |(o, r) - g|^2

The first is a label for every step that somebody else took (Nair et al. 2017; Torabi et al. 2018); the second is a
forward model of time run backwards, and is learned as one.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Num

from parnassus.networks import MLP, Network
from parnassus.off_policy import Experience
from parnassus.replay import Replay
from parnassus.types import Key, Metrics, Spec, pytree
from parnassus.world_models.deterministic import Deterministic
from parnassus.world_models.ensemble import Ensemble, EnsembleModel, Scale
from parnassus.world_models.fitting import Fitting
from parnassus.world_models.interface import Interface


class Labeler(nn.Module):
    """Features -> the numbers of an action, or the logits of one."""

    torso: nn.Module
    size: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch f"]) -> Float[Array, "*batch n"]:
        return nn.Dense(self.size)(self.torso(x))


@pytree
class ActionModel:
    """f: which action led from o to o'."""

    network: Network  # [1, ...]: it is fitted as an ensemble of one
    inputs: Scale  # of (o, o' - o)
    optimizer: optax.OptState
    interface: Interface

    def outputs(self, network: Network, o: Float[Array, "S"], next_o: Float[Array, "S"]) -> Float[Array, "n"]:
        """What a network says of one step: the action's numbers, or the logits of each."""
        x = jnp.concatenate([o, next_o - o]).astype(jnp.float32)
        return network(self.inputs.normalize(x))

    def __call__(self, observation: Float[Array, "B S"], next_observation: Float[Array, "B S"]) -> Num[Array, "B *a"]:
        """The actions as the policy draws them: the mean of a Box, the most probable of a Discrete."""
        network = jax.tree.map(lambda x: x[0], self.network)
        outputs = jax.vmap(self.outputs, in_axes=(None, 0, 0))(network, observation, next_observation)
        if self.interface.num_actions:
            return outputs.argmax(-1)
        return outputs.reshape(-1, *self.interface.action_shape)


@pytree
class InverseAction:
    """Learns f; Box observations of one dimension, Discrete or Box actions."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "swish"  # after each hidden layer
    fitting: Fitting = Fitting(tolerance=1e-4)

    def create(self, key: Key, spec: Spec) -> ActionModel:
        """A model before any fitting. Raises BadInput for spaces that it cannot learn."""
        interface = Interface.of(spec)
        module = Labeler(MLP(self.hidden_sizes, self.activation, initial_weights="normal"), interface.action_size)
        num_inputs = 2 * interface.observation_size
        network = jax.vmap(lambda key: Network.create(module, key, jnp.zeros(num_inputs)))(key[None])
        return ActionModel(network, Scale.unit(num_inputs), self.fitting.init(network), interface)

    def fit(self, model: ActionModel, replay: Replay, key: Key) -> tuple[ActionModel, Metrics]:
        """The model after learning from a replay of one-step `Experience`."""
        rows: Experience = replay.storage
        inputs = jnp.concatenate([rows.observation, rows.next_observation - rows.observation], axis=-1)
        model = dataclasses.replace(
            model, inputs=Scale.of(inputs.astype(jnp.float32), jnp.arange(replay.capacity) < replay.size)
        )

        def loss(network: Network, batch: Experience) -> Array:
            outputs = jax.vmap(model.outputs, in_axes=(None, 0, 0))(network, batch.observation, batch.next_observation)
            actions = jax.vmap(model.interface.encode)(batch.action)
            if model.interface.num_actions:
                return optax.softmax_cross_entropy(outputs, actions).mean()
            return ((actions - outputs) ** 2).mean()

        network, optimizer, lowest, looks = self.fitting(model.network, model.optimizer, loss, loss, replay, key)
        model = dataclasses.replace(model, network=network, optimizer=optimizer)
        return model, {"model/loss": lowest.mean(), "model/looks": looks.astype(jnp.float32)}


@pytree
class Predecessor:
    """Learns g by the forward model that is given: its members' `predict(next_observation, action)` is (o, r)."""

    model: Deterministic | Ensemble = Deterministic(learn_termination=False)

    def create(self, key: Key, spec: Spec) -> EnsembleModel:
        """A model before any fitting. Raises BadInput for spaces that it cannot learn."""
        return self.model.create(key, spec)

    def fit(self, model: EnsembleModel, replay: Replay, key: Key) -> tuple[EnsembleModel, Metrics]:
        """The model after learning from a replay of one-step `Experience`."""
        rows: Experience = replay.storage
        backwards = rows._replace(observation=rows.next_observation, next_observation=rows.observation)
        return self.model.fit(model, dataclasses.replace(replay, storage=backwards), key)
