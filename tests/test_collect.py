"""Two collectors, one trajectory; errors and statistics of the host loop."""

from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus.collect import HostCollector, ScanCollector
from parnassus.envs.classic import CartPole, Pendulum
from parnassus.envs.gymnasium import GymnasiumEnvs
from parnassus.envs.wrap import as_gymnasium
from parnassus.types import EnvironmentRaised, Spec, Step, Transition, pytree


class Script(NamedTuple):
    actions: jax.Array  # [T, ...]


@pytree
class Scripted:
    """Plays the same actions in every episode; its memory is the time since the episode began."""

    num_steps: int

    def init(self, key: Any, spec: Spec) -> Script:
        if isinstance(spec.action_space, gymnasium.spaces.Discrete):
            return Script(jax.random.randint(key, (1000,), 0, spec.action_space.n))
        return Script(jax.random.uniform(key, (1000, *spec.action_space.shape), minval=-1.5, maxval=1.5))

    def behavior(self, learner: Script) -> Script:
        return learner

    def initial_memory(self, spec: Spec) -> jax.Array:
        return jnp.zeros(spec.num_envs, jnp.int32)

    def act(self, behavior: Script, memory: jax.Array, observation: Any, key: Any, explore: bool) -> tuple:
        return behavior.actions[memory], memory + 1, {"time": memory}

    def learn(self, learner: Script, trajectory: Transition, key: Any) -> tuple:
        return learner, {}


@pytree
class FixedStart:
    """An environment whose episodes all start alike, so that two collectors cannot differ by their random numbers."""

    env: Any

    @property
    def observation_space(self) -> gymnasium.Space:
        return self.env.observation_space

    @property
    def action_space(self) -> gymnasium.Space:
        return self.env.action_space

    def reset(self, key: Any) -> tuple:
        return self.env.reset(jax.random.key(7))

    def step(self, state: Any, action: Any, key: Any) -> Step:
        return self.env.step(state, action, key)


@pytest.mark.parametrize("env", [CartPole(), Pendulum(max_steps=37)], ids=["terminating", "truncating"])
def test_two_collectors_one_trajectory(env: Any) -> None:
    env, algorithm, num_envs = FixedStart(env), Scripted(num_steps=100), 2
    scan, host = ScanCollector(env, num_envs), HostCollector(GymnasiumEnvs(lambda: as_gymnasium(env), num_envs))
    script = algorithm.init(jax.random.key(1), scan.spec)
    trajectories, actors = [], []
    for collector in (scan, host):
        actor = collector.begin(algorithm, collector.init(algorithm, jax.random.key(0)), jax.random.key(2))
        for part in (3, 4):  # two trajectories: the second starts in the middle of an episode
            actor, trajectory = collector.collect(algorithm, script, actor, jax.random.key(part))
            trajectories.append(trajectory)
        actors.append(actor)
    host.close()
    for compiled, looped in zip(trajectories[:2], trajectories[2:], strict=True):
        assert compiled.done.any()
        assert not compiled.done.all()
        for name in Transition._fields:
            a, b = (jax.tree.map(np.asarray, getattr(t, name)) for t in (compiled, looped))
            close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5, err_msg=name)
            jax.tree.map(close, a, b)
    for a, b in zip(actors[0].episodes, actors[1].episodes, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4)


def test_the_successor_is_the_true_one_where_an_episode_ends() -> None:
    env, algorithm = FixedStart(Pendulum(max_steps=5)), Scripted(num_steps=12)
    collector = ScanCollector(env, 1)
    actor = collector.init(algorithm, jax.random.key(0))
    _, t = collector.collect(algorithm, algorithm.init(jax.random.key(1), collector.spec), actor, jax.random.key(2))
    assert np.flatnonzero(t.truncated[:, 0]).tolist() == [4, 9]
    first = t.observation[0]
    np.testing.assert_array_equal(t.observation[5], first)  # the next episode's start ...
    assert not np.allclose(t.next_observation[4], first)  # ... is not where the last one ended
    for step in range(11):
        if step not in (4, 9):
            np.testing.assert_array_equal(t.next_observation[step], t.observation[step + 1])


class Raises(gymnasium.Env):
    """An environment that breaks at its fifth step."""

    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32), gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple:
        self.steps += 1
        if self.steps == 5:
            raise RuntimeError("the gearbox broke")
        return np.zeros(2, np.float32), 0.0, False, False, {}


def test_an_environment_that_raises_is_named_with_its_step() -> None:
    algorithm, collector = Scripted(num_steps=10), HostCollector(GymnasiumEnvs(Raises, 1))
    actor = collector.begin(algorithm, collector.init(algorithm, jax.random.key(0)), jax.random.key(1))
    script = algorithm.init(jax.random.key(2), collector.spec)
    with pytest.raises(EnvironmentRaised, match="RuntimeError: the gearbox broke") as error:
        collector.collect(algorithm, script, actor, jax.random.key(3))
    assert error.value.step == 4


def test_unbroken_episodes_are_an_option() -> None:
    algorithm = Scripted(num_steps=10)
    for exact, lengths in ((True, [10]), (False, [20])):
        collector = HostCollector(GymnasiumEnvs("Pendulum-v1", 1), exact_resume=exact)
        actor = collector.init(algorithm, jax.random.key(0))
        script = algorithm.init(jax.random.key(1), collector.spec)
        for part in (2, 4):
            actor = collector.begin(algorithm, actor, jax.random.key(part))
            actor, _ = collector.collect(algorithm, script, actor, jax.random.key(part + 1))
        assert actor.episodes.length.tolist() == lengths
        collector.close()
