"""Where a run's experience comes from, by what the user named."""

import pytest

from parnassus import training
from parnassus.algorithms.a3c import A3C
from parnassus.algorithms.mpc import MPC
from parnassus.algorithms.q_learning import QLearning
from parnassus.collect import HostCollector, ScanCollector
from parnassus.distributed import asynchronous
from parnassus.distributed.crews import Workers
from parnassus.envs.classic import CartPole, Pendulum
from parnassus.planning.cem import CEM
from parnassus.simulator import Simulator
from parnassus.source import close, driver_of, env_name, make, source_of, with_simulator
from parnassus.types import BadInput
from tests.tiny_runs import tiny_ppo, well_behaved

CONFIG = {"num_envs": 2, "asynchronous": False, "exact_resume": True, "env_options": {}}
TINY_MPC = MPC(CEM(horizon=2, candidates=4, elites=2, iterations=2))


def test_the_options_of_an_environment_are_those_of_the_config_or_given():
    assert make("jax:CartPole-v1", 1, {**CONFIG, "env_options": {"max_steps": 7}}).max_steps == 7
    assert make("jax:CartPole-v1", 1, {**CONFIG, "env_options": {"max_steps": 7}}, {"max_steps": 9}).max_steps == 9
    with pytest.raises(BadInput, match="does not know an option of"):
        make("jax:CartPole-v1", 1, CONFIG, {"colour": 1})


def test_a_jax_environment_is_scanned_and_others_are_stepped_on_the_host():
    algorithm, collector = source_of(tiny_ppo(), "jax:CartPole-v1", CONFIG)
    assert algorithm == tiny_ppo() and isinstance(collector, ScanCollector) and collector.num_envs == 2
    _, collector = source_of(tiny_ppo(), well_behaved, {**CONFIG, "exact_resume": False})
    assert isinstance(collector, HostCollector) and collector.spec.num_envs == 2 and not collector.exact_resume
    close(collector.env)


def test_workers_that_do_not_wait_have_environments_of_their_own():
    assert driver_of(tiny_ppo()) is training and driver_of(A3C()) is asynchronous
    _, workers = source_of(A3C(), "jax:CartPole-v1", CONFIG)
    assert isinstance(workers, Workers) and workers.num_workers == 2 and workers.spec.num_envs == 1


def test_only_a_planner_without_a_model_sees_the_environments_state():
    algorithm, env = with_simulator(TINY_MPC, Pendulum())
    assert isinstance(env, Simulator) and algorithm.simulator is env
    untouched = QLearning()
    assert with_simulator(untouched, CartPole()) == (untouched, CartPole())


def test_closing_closes_what_can_be_closed():
    closed = []

    class OnHost:
        def close(self):
            closed.append(True)

    close(OnHost())
    close(CartPole())
    assert closed == [True]


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ("CartPole-v1", "CartPole-v1"),
        ({"object": "Corridor(cost=0.1)"}, "Corridor(cost=0.1)"),
        (well_behaved, "well_behaved"),
        (CartPole(), "CartPole"),
    ],
)
def test_what_an_environment_is_called(env, name):
    assert env_name(env) == name
