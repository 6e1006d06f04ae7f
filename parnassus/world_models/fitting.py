"""Fitting networks side by side to a replay: held-out transitions, a bootstrap for each, stopping when it is time.

    a share of the replay's transitions is held out; each network draws a bootstrap from the others
    repeat until every network has stopped
        for each network: a number of gradient steps on minibatches of its bootstrap
        its held-out loss <- over the held-out transitions
        where that is the lowest so far by more than the tolerance, its parameters are kept
        where it was not for `patience` looks, it stops; the kept parameters are what was fitted

Which rows are held out depends on nothing but their place in the ring, so what was held out of one fit is held out of
the next, which goes on from its parameters. Products are batched over the networks: [E, B, features].
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from parnassus.replay import Replay
from parnassus.types import Bounds, Count, Key, Keys, NonNegative, Tree, pytree

# (the parameters of one network, a batch of transitions [B, ...]) -> a scalar
Loss = Callable[[Any, Any], Float[Array, ""]]


class _Fit(NamedTuple):
    """E networks on their way."""

    parameters: Tree  # [E, ...]
    optimizer: optax.OptState  # [E, ...]
    kept: tuple[Tree, optax.OptState]  # both, where the held-out loss was lowest
    lowest: Float[Array, "E"]  # that loss
    looks: Int[Array, ""]  # how often the held-out transitions were looked at
    waiting: Int[Array, "E"]  # looks since it was lowest
    key: Key


@pytree
class Fitting:
    """How networks are fitted to a replay, by Adam."""

    learning_rate: NonNegative = 1e-3  # Adam's step size
    weight_decay: NonNegative = 1e-5  # of the squared weights in the loss (Chua et al. 2018), biases apart
    minibatch_size: Count = 256  # B: transitions per gradient step, for each network
    holdout: Annotated[int, Bounds(2)] = 5  # one transition of so many is held out
    holdout_size: Count = 1024  # transitions of those that a look reads
    steps_per_look: Count = 50  # gradient steps between two looks at the held-out transitions
    patience: Count = 5  # looks without a lower loss after which a network stops
    max_looks: Count = 100  # after which all stop
    tolerance: NonNegative = 0.01  # by how much a loss must be lower than the lowest

    def optimizer(self) -> optax.GradientTransformation:
        """Adam on the gradient of the loss and of weight_decay / 2 |weights|^2."""
        is_weight = lambda parameters: jax.tree.map(lambda x: jnp.ndim(x) > 1, parameters)  # noqa: E731
        return optax.chain(
            optax.masked(optax.add_decayed_weights(self.weight_decay), is_weight), optax.adam(self.learning_rate)
        )

    def init(self, parameters: Tree) -> optax.OptState:
        """The optimiser's state for networks side by side, leaves [E, ...]."""
        return jax.vmap(self.optimizer().init)(parameters)

    def __call__(
        self, parameters: Tree, optimizer: optax.OptState, loss: Loss, score: Loss, replay: Replay, key: Key
    ) -> tuple[Tree, optax.OptState, Float[Array, "E"], Int[Array, ""]]:
        """Parameters and optimiser state after fitting, leaves [E, ...], the held-out score of each network, and how
        often it was looked at.

        `loss` is descended, `score` (of the held-out transitions) decides what is kept. With fewer than `holdout`
        transitions in the replay nothing is held out: then nothing is fitted.
        """
        bootstrap_key, train_key = jax.random.split(key)
        num_networks = jax.tree.leaves(parameters)[0].shape[0]
        num_rows = (replay.size // self.holdout) * (self.holdout - 1)
        bootstrap = Bootstrap(jax.random.split(bootstrap_key, num_networks), jnp.maximum(num_rows, 1))
        held_out = self.held_out(replay)
        scores = lambda parameters: jax.vmap(score, in_axes=(0, None))(parameters, held_out)  # noqa: E731
        adam = self.optimizer()

        def gradient_step(_: Array, carry: tuple[Tree, optax.OptState, Key]) -> tuple[Tree, optax.OptState, Key]:
            parameters, optimizer, key = carry
            key, draw_key = jax.random.split(key)
            rows = training_row(bootstrap.draw(draw_key, self.minibatch_size), self.holdout)
            batch = jax.vmap(replay.__getitem__)(rows)
            gradients = jax.vmap(jax.grad(loss))(parameters, batch)
            updates, optimizer = jax.vmap(adam.update)(gradients, optimizer, parameters)
            return optax.apply_updates(parameters, updates), optimizer, key

        def look(fit: _Fit) -> _Fit:
            after = jax.lax.fori_loop(0, self.steps_per_look, gradient_step, (fit.parameters, fit.optimizer, fit.key))
            parameters, optimizer, key = after
            now = scores(parameters)
            better = (now < fit.lowest - self.tolerance) & (fit.waiting < self.patience)
            kept = jax.tree.map(
                lambda new, old: jnp.where(better.reshape(-1, *(1,) * (new.ndim - 1)), new, old),
                (parameters, optimizer),
                fit.kept,
            )
            waiting = jnp.where(better, 0, fit.waiting + 1)
            lowest = jnp.where(better, now, fit.lowest)
            return _Fit(parameters, optimizer, kept, lowest, fit.looks + 1, waiting, key)

        def goes_on(fit: _Fit) -> Array:
            return (fit.looks < self.max_looks) & (fit.waiting < self.patience).any() & (num_rows > 0)

        start = _Fit(
            parameters,
            optimizer,
            (parameters, optimizer),
            scores(parameters),
            jnp.zeros((), jnp.int32),
            jnp.zeros(num_networks, jnp.int32),
            train_key,
        )
        end = jax.lax.while_loop(goes_on, look, start)
        return *end.kept, end.lowest, end.looks

    def held_out(self, replay: Replay) -> Tree:
        """Held-out transitions, leaves [holdout_size, ...]: all of them, evenly often, or evenly spread ones."""
        blocks = jnp.arange(self.holdout_size) * (replay.size // self.holdout) // self.holdout_size
        return replay[held_out_row(blocks, self.holdout)]


class Bootstrap(NamedTuple):
    """For each of E networks as many of the rows 0 ... num_rows - 1 as there are, drawn with replacement.

    Nothing is stored: which row is the j-th of a network is computed from its key and j. A single network has every
    row once.
    """

    keys: Keys  # [E]
    num_rows: Int[Array, ""]

    def rows(self, positions: Int[Array, "E B"]) -> Int[Array, "E B"]:
        """The rows at these positions of each network's own."""
        if len(self.keys) == 1:
            return positions
        draw = lambda key, j: jax.random.randint(jax.random.fold_in(key, j), (), 0, self.num_rows)  # noqa: E731
        return jax.vmap(jax.vmap(draw, in_axes=(None, 0)))(self.keys, positions)

    def draw(self, key: Key, batch_size: int) -> Int[Array, "E B"]:
        """A minibatch for each network."""
        return self.rows(jax.random.randint(key, (len(self.keys), batch_size), 0, self.num_rows))


def held_out_row(block: Int[Array, "..."], holdout: int) -> Int[Array, "..."]:
    """The row that is held out of a block of `holdout` rows: pseudo-random (Knuth's multiplicative hash), so that it
    is not always the same step of episodes that are as long as a block."""
    hashed = (block.astype(jnp.uint32) * jnp.uint32(2_654_435_761)) >> 16
    return block * holdout + (hashed % holdout).astype(block.dtype)


def training_row(i: Int[Array, "..."], holdout: int) -> Int[Array, "..."]:
    """The i-th row that is not held out."""
    block, place = i // (holdout - 1), i % (holdout - 1)
    row = block * holdout + place
    return row + (row >= held_out_row(block, holdout))
