"""A network as a model of a world without noise (Sutton 1990's Dyna with a network): its error is all it descends.

    o' - o, r  =  f(o, a),     terminated  =  p(o, a) > 1/2
    descend  (y - f(o, a))^2  of y = (o' - o, r)  -  terminated log p - (1 - terminated) log(1 - p)

The same model as `Ensemble` makes, with one member that says nothing of noise.
"""

from typing import Literal

from flax import linen as nn
from jaxtyping import Array, Float

from parnassus.networks import MLP
from parnassus.replay import Replay
from parnassus.types import Key, Metrics, Spec, pytree
from parnassus.world_models.ensemble import EnsembleModel, Member, Outputs, create, fit
from parnassus.world_models.fitting import Fitting
from parnassus.world_models.interface import Interface


class Point(nn.Module):
    """Features -> `Outputs` without a variance."""

    torso: nn.Module
    size: int  # D
    learn_termination: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*batch f"]) -> Outputs:
        y = nn.Dense(self.size + self.learn_termination)(self.torso(x))
        return Outputs(y[..., : self.size], None, y[..., -1] if self.learn_termination else None)


@pytree
class Deterministic:
    """One network; Box observations of one dimension, Discrete or Box actions."""

    hidden_sizes: tuple[int, ...] = (200, 200, 200)
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "swish"  # after each hidden layer
    learn_termination: bool = True  # whether an episode ends in o', too
    fitting: Fitting = Fitting(tolerance=1e-4)  # in squared standard deviations

    def create(self, key: Key, spec: Spec) -> EnsembleModel:
        """A model before any fitting. Raises BadInput for spaces that it cannot learn."""
        size = Interface.of(spec).observation_size + 1
        torso = MLP(self.hidden_sizes, self.activation, initial_weights="normal")
        return create(key, spec, Point(torso, size, self.learn_termination), 1, self.fitting)

    def fit(self, model: EnsembleModel, replay: Replay, key: Key) -> tuple[EnsembleModel, Metrics]:
        """The model after learning from a replay of one-step `Experience`, where a discount of 0 is a termination."""
        return fit(model, replay, key, self.fitting, Member.score)
