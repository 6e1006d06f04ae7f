"""What a worker does: segments, each on a fresh copy of the shared learner.

while segments are left:
    copy   <- shared
    act with the copy for `num_steps` steps; gradients <- algorithm.gradients(copy, trajectory)
    before <- shared                           (what others made of it meanwhile)
    after  <- algorithm.apply(before, gradients, trajectory)
    shared parameters += after - before;  shared statistics <- after
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from parnassus import training
from parnassus.compilation import Program
from parnassus.distributed.shared import Layout, Shared
from parnassus.types import Actor, AsynchronousAlgorithm, Collector, Key, Learner, Transition, Tree, pytree


class Done(NamedTuple):
    """What a worker has to say after its part of a chunk."""

    actor: Actor
    key: Key
    rows: dict[str, np.ndarray]  # metrics of its segments [K]; empty if it had none


@pytree
class Row:
    """The metrics of a segment in one array: sixteen small ones take longer to hand over than to compute."""

    values: Float[Array, "M"]
    names: tuple[str, ...]


def work(
    algorithm: AsynchronousAlgorithm,
    collector: Collector,
    shared: Shared,
    take: Callable[[], bool],
    actor: Actor,
    key: Key,
) -> Done:
    """Do segments while `take()` says that one is left."""
    apply = _compiled_apply.chosen_once()
    if collector.is_pure:
        run = _compiled_segment.chosen_once()
    else:
        run = partial(_segment, differentiate=_compiled_differentiate.chosen_once())
    if not collector.is_pure:
        key, begin_key, _ = training.split(key)
        actor = collector.begin(algorithm, actor, begin_key)
    rows: list[Row] = []
    while take():
        actor, key, gradients, trajectory, row = run(
            algorithm, collector, shared.layout, shared.words.copy(), actor, key
        )
        before = shared.words.copy()
        after = apply(algorithm, shared.layout, before, gradients, trajectory)
        shared.add(before, shared.layout.pack(after))
        rows.append(row)
    if not rows:
        return Done(actor, key, {})
    values = np.stack([np.asarray(row.values) for row in rows], axis=-1).astype(np.float64)
    return Done(actor, key, dict(zip(rows[0].names, values, strict=True)))


def _differentiate(
    algorithm: AsynchronousAlgorithm, learner: Learner, trajectory: Transition, key: Key, episodes: dict
) -> tuple[Tree, Row]:
    gradients, metrics = algorithm.gradients(learner, trajectory, key)
    metrics = {**metrics, **training.finite_flags(trajectory), **episodes}
    return gradients, Row(jnp.stack([jnp.asarray(x, jnp.float32) for x in metrics.values()]), tuple(metrics))


def _segment(
    algorithm: AsynchronousAlgorithm,
    collector: Collector,
    layout: Layout,
    words: Tree,
    actor: Actor,
    key: Key,
    differentiate: Callable = _differentiate,
) -> tuple[Actor, Key, Tree, Transition, Row]:
    """Act with the copy and differentiate: what `training.iterate` does, without the step."""
    learner = layout.unpack(words)
    key, collect_key, learn_key = training.split(key)
    actor, trajectory = collector.collect(algorithm, algorithm.behavior(learner), actor, collect_key)
    gradients, row = differentiate(algorithm, learner, trajectory, learn_key, training.episode_sums(actor))
    return actor, key, gradients, trajectory, row


def _apply(
    algorithm: AsynchronousAlgorithm, layout: Layout, words: Tree, gradients: Tree, trajectory: Transition
) -> Learner:
    return algorithm.apply(layout.unpack(words), gradients, trajectory)


_compiled_segment = Program(_segment, static_argnames="layout")
_compiled_differentiate = Program(_differentiate)
_compiled_apply = Program(_apply, static_argnames="layout")
