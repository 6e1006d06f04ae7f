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


def train(algorithm: PlaNet, env: Any, steps: int, seed: int = 0) -> Any:
    collector = ScanCollector(env, 4)
    state = training.init(algorithm, collector, jax.random.key(seed), steps)
    *_, chunk = training.train(algorithm, collector, state, steps)
    return chunk


def planned(algorithm: PlaNet, learner: Any, env: Any, observation: Any) -> np.ndarray:
    """The actions at the start of an episode."""
    memory = algorithm.initial_memory(Spec(env.observation_space, env.action_space, len(observation)))
    act = jax.jit(algorithm.act, static_argnums=4)
    return np.asarray(act(algorithm.behavior(learner), memory, observation, jax.random.key(1), False)[0])


@pytest.mark.parametrize("kind", ["action", "conditional"])
@pytest.mark.parametrize("continuous", [True, False])
def test_latent_planning_finds_what_pays(kind: str, continuous: bool) -> None:
    """Where episodes last for one step: nothing that the model imagines after it counts."""
    algorithm = CONTINUOUS if continuous else DISCRETE
    probe = Probe(kind, continuous=continuous)
    chunk = train(algorithm, probe, 1_500)
    shown = probe.observe(jnp.arange(2))[-1:] if kind == "action" else probe.observe(jnp.arange(2))
    shown = -shown if kind == "action" else shown  # what it shows
    actions = planned(algorithm, chunk.state.learner, probe, shown)
    wanted = [0.5] if kind == "action" else [-0.5, 0.5]  # twice that in the probe's units
    if continuous:
        np.testing.assert_allclose(actions[:, 0], wanted, atol=0.2)
    else:
        assert actions.tolist() == [x > 0 for x in wanted]


def test_pictures_are_read_and_kept_as_bytes() -> None:
    env = Pictures(Probe("conditional", continuous=True))
    algorithm = dataclasses.replace(CONTINUOUS, observation_std=1.0)
    learner = train(algorithm, env, 1_000).state.learner
    assert learner.replay.storage.observation.dtype == jnp.uint8
    assert learner.replay.storage.observation.shape == (250, 8, 10, 10, 4)
    pictures = jnp.stack([env.picture(env.probe.observe(jnp.int32(i))) for i in range(2)])
    np.testing.assert_allclose(planned(algorithm, learner, env, pictures)[:, 0], [-0.5, 0.5], atol=0.25)


TINY = dataclasses.replace(
    CONTINUOUS,
    planner=CEM(horizon=2, candidates=8, elites=2, iterations=2),
    num_updates=2,
    minibatch_size=4,
    replay_size=128,
    learning_starts=64,
    deterministic_size=8,
    hidden_sizes=(8,),
)


@pytest.mark.parametrize("kind", ["scan", "host"])
def test_resuming_is_exact(kind: str, tmp_path: Any) -> None:
    """Random actions, the first updates and full replays on both sides of the cut; episodes of five steps, segments
    of eight: the filter's state is in the middle of an episode there."""
    probe = Probe("endless", continuous=True)
    steps = 8 * 4 * 8

    def run(upto: int, state: Any = None) -> Any:
        if kind == "scan":
            collector: Any = ScanCollector(probe, 4)
        else:
            collector = HostCollector(GymnasiumEnvs(lambda: as_gymnasium(probe), 4))
        fresh = training.init(TINY, collector, jax.random.key(3), steps)
        if state is not None:
            fresh, _, _ = checkpoint.load(state, fresh)
        for chunk in training.train(TINY, collector, fresh, steps, chunk_iterations=2):
            if chunk.steps == upto:
                break
        return chunk.state

    whole = run(steps)
    checkpoint.save(tmp_path / "half", run(steps // 2), steps // 2)
    parts = run(steps, tmp_path / "half")
    assert not np.array_equal(whole.learner.model.networks.reward.params["Dense_0"]["bias"], 0.0)
    for (path, a), b in zip(jax.tree.leaves_with_path(whole), jax.tree.leaves(parts), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=jax.tree_util.keystr(path))


def test_the_filter_starts_anew_with_each_episode() -> None:
    """Of each step's state only the first one's is a posterior after zeros; and it is no function of what was before."""
    probe = Probe("endless", continuous=True)
    collector = ScanCollector(probe, 2)
    learner = TINY.init(jax.random.key(0), collector.spec)
    actor = collector.init(TINY, jax.random.key(1))
    model, h = learner.model, []
    first = model.networks.recurrence(model.nowhere(2), jnp.zeros((2, 1)))
    one_step = dataclasses.replace(TINY, num_steps=1)
    collect = jax.jit(collector.collect)
    for key in jax.random.split(jax.random.key(2), 6):
        actor, trajectory = collect(one_step, TINY.behavior(learner), actor, key)
        h.append(actor.memory.state.deterministic)
        np.testing.assert_array_equal(actor.memory.action == 0.0, trajectory.done[0][:, None])
    # What is remembered after the fifth step, the episode's last, is nothing; the sixth is a first one.
    np.testing.assert_allclose(h[0], first, atol=1e-6)
    assert not np.allclose(h[1], first, atol=1e-3)
    np.testing.assert_array_equal(h[4], 0.0)
    np.testing.assert_allclose(h[5], first, atol=1e-6)


def spread_of(algorithm: PlaNet, spec: Spec, steps: int, explore: bool) -> tuple[np.ndarray, Any]:
    """The actions of many environments that are in the same place."""
    learner = algorithm.init(jax.random.key(0), spec)
    learner = learner._replace(progress=dataclasses.replace(learner.progress, steps=jnp.int32(steps)))
    act = jax.jit(algorithm.act, static_argnums=4)
    memory, seen = algorithm.initial_memory(spec), jnp.zeros((spec.num_envs, 1))
    action, _, extras = act(algorithm.behavior(learner), memory, seen, jax.random.key(1), explore)
    return np.asarray(action), extras


def test_how_it_explores() -> None:
    """Evenly drawn actions at first, planned ones with noise later, planned ones alone where not exploring."""
    spec = Spec(spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Box(-2.0, 2.0, (1,), np.float32), 500)
    settled = dataclasses.replace(TINY, planner=CEM(horizon=1, candidates=2, elites=1, iterations=1, first_std=0.0))
    even, extras = spread_of(settled, spec, 63, True)
    np.testing.assert_allclose(np.histogram(even, 4, (-1, 1))[0] / 500, 0.25, atol=0.06)
    assert np.isnan(extras["plan/value"]).all()
    noisy, extras = spread_of(settled, spec, 64, True)
    assert np.isfinite(extras["plan/value"]).all()
    assert noisy.std() == pytest.approx(0.3, abs=0.03) and noisy.mean() == pytest.approx(0.0, abs=0.05)
    wide, _ = spread_of(dataclasses.replace(settled, noise=9.0), spec, 64, True)
    assert np.abs(wide).max() == 1.0
    np.testing.assert_array_equal(spread_of(settled, spec, 64, False)[0], 0.0)  # the plan of doing nothing


def test_of_discrete_actions_a_share_is_random() -> None:
    spec = Spec(spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Discrete(2, start=3), 500)
    changed = []
    for share in (0.0, 0.5):
        algorithm = dataclasses.replace(TINY, planner=RandomShooting(horizon=1, candidates=64), noise=share)
        exploring, planned = (spread_of(algorithm, spec, 64, explore)[0] for explore in (True, False))
        assert set(exploring.tolist()) <= {0, 1}  # from 0, whatever the environment's first is called
        changed.append((exploring != planned).mean())
    assert changed[0] == 0.0
    assert changed[1] == pytest.approx(0.25, abs=0.06)  # half of the random ones are the planned ones


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
