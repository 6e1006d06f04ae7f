"""MPC: what the planner finds is what is done, in every environment by its own state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parnassus as pa
from parnassus import training
from parnassus.algorithms.mpc import MPC
from parnassus.collect import ScanCollector
from parnassus.envs.classic import Pendulum
from parnassus.evaluation import evaluate
from parnassus.planning.cem import CEM, MPPI
from parnassus.planning.random_shooting import RandomShooting
from parnassus.simulator import Simulator
from parnassus.types import BadInput, Spec
from tests.probe_envs import Probe

PLANNERS = {
    "cem": CEM(horizon=2, candidates=32, elites=8, iterations=6),
    "mppi": MPPI(horizon=2, candidates=64, iterations=6, temperature=0.02),
    "random-shooting": RandomShooting(horizon=1, candidates=512),
}


@pytest.mark.parametrize("kind", ["action", "conditional"])
@pytest.mark.parametrize("name", PLANNERS)
def test_it_finds_what_pays(name, kind):
    """With the probe's state, and not its observation, as the model's: both states at once."""
    probe = Probe(kind, continuous=True)
    simulator = Simulator(probe)
    algorithm = MPC(PLANNERS[name], simulator=simulator)
    states, observations = jax.vmap(simulator.reset)(jax.random.split(jax.random.key(0), 8))
    memory = algorithm.initial_memory(Spec(simulator.observation_space, simulator.action_space, 8))
    action, memory, extras = jax.jit(algorithm.act, static_argnums=4)((), memory, observations, jax.random.key(1), True)
    wanted = np.where((states.index == 1) | (kind == "action"), 0.5, -0.5)  # twice that in the probe's units
    assert len(set(wanted.tolist())) == (1 if kind == "action" else 2)
    np.testing.assert_allclose(action[:, 0], wanted, atol=0.05)
    np.testing.assert_allclose(extras["plan/value"], 1.0, atol=0.02)  # one step, and nothing after its end


def test_discrete_actions():
    algorithm = MPC(RandomShooting(horizon=2, candidates=16), simulator=Simulator(Probe("conditional")))
    result = evaluate(algorithm, (), algorithm.simulator, episodes=16)
    assert result.returns.tolist() == [1.0] * 16


@pytest.mark.slow
def test_it_swings_a_pendulum_up():
    """The search's plan is shifted into the next: with four sequences of elites it is far above any random policy."""
    planner = CEM(horizon=15, candidates=64, elites=8, iterations=3, discount=0.99)
    algorithm = training.arrays(MPC(planner, simulator=Simulator(Pendulum())))
    assert evaluate(algorithm, (), algorithm.simulator, episodes=16).mean > -300.0


def test_planning_side_by_side_is_planning_alone():
    """Each environment's plan depends on its own state, memory and key."""
    algorithm = MPC(PLANNERS["cem"], simulator=Simulator(Probe("conditional", continuous=True)))
    collector = ScanCollector(algorithm.simulator, 3)
    memory = jax.random.uniform(jax.random.key(0), (3, 2, 1), minval=-1.0)
    actor = collector.init(algorithm, jax.random.key(1))
    together = algorithm.act((), memory, actor.observation, jax.random.key(2), True)
    keys = jax.random.split(jax.random.key(2), 3)
    model = jax.tree.map(lambda x: jnp.asarray(x)[None], algorithm.simulator.env)
    for i in range(3):
        state = jax.tree.map(lambda x: x[i], actor.state)  # noqa: B023
        alone = algorithm.planner(model, state, memory[i], keys[i])
        np.testing.assert_allclose(together[0][i], alone[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(together[1][i], alone[1], rtol=1e-5, atol=1e-6)


def test_a_run_and_its_policy(tmp_path):
    """`train` gives it the simulator; config.json names the environment alone; the policy in use wants the state."""
    run = pa.train(MPC(PLANNERS["cem"]), "jax:Pendulum-v1", 8, num_envs=2, run=tmp_path / "run", quiet=True)
    assert "plan/value" in run.metrics
    loaded = pa.load(tmp_path / "run")
    assert loaded.config["hyperparameters"]["simulator"] is None
    assert loaded.algorithm.simulator == Simulator(Pendulum())
    _, observation = loaded.algorithm.simulator.reset(jax.random.key(0))
    action = loaded.policy()(jax.tree.map(np.asarray, observation))
    assert loaded.spec.action_space.contains(action)


@pytest.mark.parametrize(
    ("planner", "env", "message"),
    [
        ("cem", "Pendulum-v1", "MPC plans in the environment itself, which must be a JAX environment"),
        ("cem", "jax:CartPole-v1", "the cross-entropy method needs continuous .Box. actions, not Discrete"),
    ],
)
def test_where_it_cannot_plan(planner, env, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        pa.train(MPC(PLANNERS[planner]), env, 8, run=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
