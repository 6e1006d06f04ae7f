"""Presets: each is an algorithm that can be built and checked, and every library's version of a task has the same."""

import dataclasses

import pytest

from parnassus import presets
from parnassus.algorithms.ppo import PPO
from parnassus.algorithms.sac import SAC
from parnassus.objectives import AdaptiveKL, Clip, Unclipped
from parnassus.schedules import Linear
from parnassus.types import BadInput, check


@pytest.mark.parametrize("name, task", presets._presets())
def test_every_preset_is_within_its_bounds(name, task):
    algorithm, options = presets.preset(name, task)
    check(algorithm)
    assert isinstance(algorithm, presets.algorithm_class(name))
    assert set(options) == {"num_envs"} and options["num_envs"] >= 1
    if isinstance(algorithm, PPO):
        assert algorithm.num_steps * options["num_envs"] % algorithm.minibatch_size == 0


def test_every_preset_changes_something():
    for (name, task), (fields, _) in presets._presets().items():
        defaults = presets.algorithm_class(name)()
        assert any(getattr(defaults, field) != value for field, value in fields.items()), (name, task)


@pytest.mark.parametrize("source", ["", "jax:", "gymnax:", "envpool:"])
def test_all_sources_of_a_task_share_its_preset(source):
    algorithm, options = presets.preset("ppo", source + "CartPole-v1")
    assert algorithm == presets.preset("ppo", "CartPole-v1")[0]
    assert algorithm.objective == Clip(Linear(0.2, 0.0)) and options == {"num_envs": 8}


def test_another_kind_of_objective_keeps_the_rest_of_the_preset():
    usual, _ = presets.preset("ppo", "CartPole-v1")
    same, _ = presets.preset("ppo", "CartPole-v1", objective=Clip)
    assert same == usual
    other, options = presets.preset("ppo", "CartPole-v1", objective=AdaptiveKL)
    assert other == dataclasses.replace(usual, objective=AdaptiveKL()) and options == {"num_envs": 8}
    assert presets.preset("ppo", "Acrobot-v1", objective=AdaptiveKL)[0] == PPO(objective=AdaptiveKL())


def test_a_kind_may_need_more():
    for name, task, kind in presets._variants():
        usual, options = presets.preset(name, task)
        other, _ = presets.preset(name, task, objective=presets.part_class(kind))
        check(other)
        assert other != dataclasses.replace(usual, objective=other.objective)
        assert other.num_steps * options["num_envs"] % other.minibatch_size == 0
    assert presets.preset("ppo", "jax:CartPole-v1", objective=Unclipped)[0].num_epochs == 10


def test_without_a_preset_there_are_the_defaults():
    assert presets.preset("ppo", "Acrobot-v1") == (PPO(), {"num_envs": PPO.default_num_envs})
    assert presets.preset("sac", lambda: None) == (SAC(), {"num_envs": 1})


def test_names():
    for name in presets.ALGORITHMS:
        cls = presets.algorithm_class(name)
        assert presets.algorithm_name(cls()) == name

    assert presets.algorithm_name(type("PPO", (SAC,), {})()) == f"{__name__}.PPO"  # a user's own
    assert presets.algorithm_name(type("Dyna", (SAC,), {})()) == "Dyna"


def test_unknown_names_are_suggested():
    with pytest.raises(BadInput, match="unknown algorithm 'q_learning'; did you mean q-learning"):
        presets.preset("q_learning", "FrozenLake-v1")
    with pytest.raises(BadInput, match="unknown algorithm 'zzz'; choose one of a2c, "):
        presets.algorithm_class("zzz")
    with pytest.raises(BadInput, match="unknown kind of hyper-parameter 'os.system'"):
        presets.part_class("os.system")
