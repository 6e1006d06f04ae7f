"""PlaNet: latent planning finds what pays, the filter starts anew with each episode, resuming is exact.

It has no values, so that of values under time limits nothing can be asked.
"""

import dataclasses
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus import checkpoint, training
from parnassus.algorithms.planet import PlaNet
from parnassus.collect import HostCollector, ScanCollector
from parnassus.envs.gymnasium import GymnasiumEnvs
from parnassus.envs.wrap import as_gymnasium
from parnassus.planning.cem import CEM
from parnassus.planning.random_shooting import RandomShooting
from parnassus.schedules import Progress
from parnassus.types import BadInput, Key, Spec, Step, Tree, pytree
from tests.probe_envs import Probe

SMALL: dict[str, Any] = {
    "num_steps": 8,
    "num_updates": 16,
    "minibatch_size": 16,
    "replay_size": 2_000,
    "learning_starts": 256,
    "learning_rate": 3e-3,
    "deterministic_size": 16,
    "stochastic_size": 4,
    "hidden_sizes": (16,),
}
CONTINUOUS = PlaNet(CEM(horizon=2, candidates=32, elites=8, iterations=4), **SMALL)
DISCRETE = PlaNet(RandomShooting(horizon=2, candidates=32), **SMALL)


@pytree
class Pictures:
    """A probe that is seen as one of two pictures of 10 x 10 pixels and 4 channels."""

    probe: Probe

    @property
    def observation_space(self) -> gymnasium.Space:
        return spaces.Box(0, 255, (10, 10, 4), np.uint8)

    @property
    def action_space(self) -> gymnasium.Space:
        return self.probe.action_space

    def picture(self, observation: Tree) -> Tree:
        """The first channel is bright on the left half for -1, on the right half for +1."""
        right = jnp.arange(10) >= 5
        bright = jnp.where(observation[0] > 0, right, ~right).astype(jnp.uint8) * jnp.uint8(200)
        return jnp.zeros((10, 10, 4), jnp.uint8).at[..., 0].set(jnp.broadcast_to(bright, (10, 10)))

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        state, observation = self.probe.reset(key)
        return state, self.picture(observation)

    def step(self, state: Tree, action: Tree, key: Key) -> Step:
        after = self.probe.step(state, action, key)
        return after._replace(observation=self.picture(after.observation))


def collector_of(env: Any, kind: str = "scan") -> Any:
    return ScanCollector(env, 4) if kind == "scan" else HostCollector(GymnasiumEnvs(lambda: as_gymnasium(env), 4))


def train(algorithm: PlaNet, collector: Any, steps: int, start: Any = None, upto: int | None = None) -> Any:
    """The state after `upto` of the planned `steps`, from the start or from a saved state; one program for all."""
    state = training.init(algorithm, collector, jax.random.key(3), steps)
    if start is not None:
        state, _, _ = checkpoint.load(start, state)
    for chunk in training.train(algorithm, collector, state, steps, chunk_iterations=4):
        if chunk.steps == upto:
            break
    return chunk.state


@jax.jit
def first_actions(algorithm: PlaNet, behavior: Any, observation: Any) -> Any:
    """What is planned at an episode's start, for each observation."""
    spec = Spec(spaces.Box(-1.0, 1.0, (1,), np.float32), behavior.model.action_space, len(observation))
    memory = algorithm.initial_memory(spec)
    return algorithm.act(behavior, memory, observation, jax.random.key(1), False)[0]


@pytest.mark.parametrize("kind", ["action", "conditional"])
def test_latent_planning_finds_what_pays(kind: str) -> None:
    """Where episodes last for one step: nothing that the model imagines after it counts."""
    probe = Probe(kind, continuous=True)
    learner = train(CONTINUOUS, collector_of(probe), 1_536).learner
    shown = probe.observe(jnp.arange(2) * (kind == "conditional"))
    actions = first_actions(CONTINUOUS, CONTINUOUS.behavior(learner), shown)
    wanted = [0.5 if kind == "action" else -0.5, 0.5]  # twice that in the probe's units
    np.testing.assert_allclose(np.asarray(actions)[:, 0], wanted, atol=0.2)


def test_discrete_actions_on_the_host() -> None:
    probe = Probe("conditional")
    learner = train(DISCRETE, collector_of(probe, "host"), 1_536).learner
    actions = first_actions(DISCRETE, DISCRETE.behavior(learner), probe.observe(jnp.arange(2)))
    assert actions.tolist() == [0, 1]


def test_pictures_are_read_and_kept_as_bytes() -> None:
    env = Pictures(Probe("conditional", continuous=True))
    algorithm = dataclasses.replace(CONTINUOUS, observation_std=1.0)
    learner = train(algorithm, collector_of(env), 1_024).learner
    assert learner.replay.storage.observation.dtype == jnp.uint8
    assert learner.replay.storage.observation.shape == (250, 8, 10, 10, 4)
    pictures = jnp.stack([env.picture(env.probe.observe(jnp.int32(i))) for i in range(2)])
    actions = first_actions(algorithm, algorithm.behavior(learner), pictures)
    np.testing.assert_allclose(np.asarray(actions)[:, 0], [-0.5, 0.5], atol=0.25)


@pytest.mark.parametrize("kind", ["scan", "host"])
def test_resuming_is_exact(kind: str, tmp_path: Any) -> None:
    """Episodes of five steps and segments of eight: at the cut, after 96 steps, the filter is in the middle of one."""
    algorithm = CONTINUOUS if kind == "scan" else DISCRETE
    collector = lambda: collector_of(Probe("endless", continuous=kind == "scan"), kind)  # noqa: E731
    steps = 4 * 8 * 20
    half = train(algorithm, collector(), steps, upto=4 * 8 * 12)
    assert np.abs(half.actor.memory.state.deterministic).min() > 0.0
    checkpoint.save(tmp_path / "half", half, 4 * 8 * 12)
    whole, parts = train(algorithm, collector(), steps), train(algorithm, collector(), steps, tmp_path / "half")
    assert not np.array_equal(whole.learner.model.networks.ending.params["Dense_0"]["bias"], 0.0)  # it has learned
    for (path, a), b in zip(jax.tree.leaves_with_path(whole), jax.tree.leaves(parts), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=jax.tree_util.keystr(path))
    if kind == "scan":  # on the host episodes start anew with each chunk
        for leaf in jax.tree.leaves(whole.actor.memory):  # 160 steps: another episode is about to begin
            np.testing.assert_array_equal(leaf, 0.0)


def test_the_filter_starts_from_zeros_and_goes_on_from_what_was_done() -> None:
    """h of a fresh memory is f(0, 0, 0), and then f of the draw and of the action before."""
    spec = Spec(spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Box(-2.0, 2.0, (1,), np.float32), 300)
    planner = CEM(horizon=1, candidates=4, elites=1, iterations=1)
    algorithm = dataclasses.replace(CONTINUOUS, planner=planner, replay_size=300 * 8)
    behavior = algorithm.behavior(algorithm.init(jax.random.key(0), spec))
    model, f = behavior.model, behavior.model.networks.recurrence
    act = jax.jit(algorithm.act, static_argnums=4)
    fresh = algorithm.initial_memory(spec)
    action, memory, extras = act(behavior, fresh, jnp.ones((300, 1)), jax.random.key(1), True)
    np.testing.assert_allclose(memory.state.deterministic, f(model.nowhere(300), jnp.zeros((300, 1))), atol=1e-6)
    _, after, _ = act(behavior, memory, jnp.ones((300, 1)), jax.random.key(2), True)
    np.testing.assert_allclose(after.state.deterministic, f(memory.state, action), atol=1e-6)

    # The first actions are drawn evenly; of plans nothing is known then.
    np.testing.assert_allclose(np.histogram(action, 4, (-1, 1))[0] / 300, 0.25, atol=0.08)
    assert np.isnan(extras["plan/value"]).all()
    ready = dataclasses.replace(behavior.progress, steps=jnp.int32(256))
    action, memory, extras = act(behavior._replace(progress=ready), fresh, jnp.ones((300, 1)), jax.random.key(1), True)
    assert np.isfinite(extras["plan/value"]).all()
    np.testing.assert_array_equal(action, memory.action)
    assert np.histogram(action, 4, (-1, 1))[0].max() / 300 > 0.4  # no longer evenly: an untrained model has its whims


def test_how_it_explores() -> None:
    """Noise in the bounds for real actions; of discrete ones a share is drawn again."""
    settled, progress = jnp.zeros((2_000, 1)), Progress.start()
    box, two = spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Discrete(2)
    noisy = CONTINUOUS.disturb(settled, box, jax.random.key(0), progress)
    assert noisy.std() == pytest.approx(0.3, abs=0.03) and noisy.mean() == pytest.approx(0.0, abs=0.05)
    wide = dataclasses.replace(CONTINUOUS, noise=9.0).disturb(settled, box, jax.random.key(0), progress)
    assert np.abs(wide).max() == 1.0
    drawn = dataclasses.replace(DISCRETE, noise=0.5).disturb(
        jnp.zeros(2_000, jnp.int32), two, jax.random.key(0), progress
    )
    assert drawn.mean() == pytest.approx(0.25, abs=0.04)  # half of the random ones are what was planned


@pytest.mark.parametrize(
    ("algorithm", "actions", "message"),
    [
        (PlaNet(), spaces.Discrete(2), "the cross-entropy method needs continuous .Box. actions, not Discrete"),
        (DISCRETE, spaces.MultiDiscrete([2, 2]), "a world model knows Discrete and Box actions, not MultiDiscrete"),
        (
            dataclasses.replace(CONTINUOUS, replay_size=31),
            spaces.Box(-1.0, 1.0, (1,), np.float32),
            "replay_size must be at least num_envs . num_steps .4 . 8.: it keeps whole segments, not 31",
        ),
    ],
)
def test_where_it_cannot_learn(algorithm: PlaNet, actions: gymnasium.Space, message: str) -> None:
    spec = Spec(spaces.Box(-1.0, 1.0, (3,), np.float32), actions, 4)
    with pytest.raises(BadInput, match=message):
        algorithm.init(jax.random.key(0), spec)
