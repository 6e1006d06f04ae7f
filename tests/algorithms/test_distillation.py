"""Distillation: the policy does what the teacher plans, without the teacher and its simulator."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parnassus as pa
from parnassus import training
from parnassus.algorithms.distillation import Distillation, imitation_loss
from parnassus.algorithms.mpc import MPC
from parnassus.algorithms.q_learning import QLearning
from parnassus.collect import ScanCollector
from parnassus.distributions import Categorical, MultiCategorical
from parnassus.envs.classic import Pendulum
from parnassus.evaluation import evaluate
from parnassus.planning.cem import CEM
from parnassus.planning.random_shooting import RandomShooting
from parnassus.simulator import Simulator
from tests.probe_envs import Probe

TEACHERS = {
    True: CEM(horizon=1, candidates=32, elites=8, iterations=6),
    False: RandomShooting(horizon=1, candidates=8),
}


def test_the_losses_by_hand():
    real = imitation_loss(jnp.array([[0.0, 1.0], [1.0, 1.0]]), jnp.array([[0.0, 0.0], [1.0, -1.0]]))
    assert real == pytest.approx((1.0 + 4.0) / 4)
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    probabilities = jnp.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    wanted = -(0.5 * np.log(0.5) + 0.5 * np.log(0.25) + np.log(0.8)) / 2
    assert imitation_loss(Categorical(logits), probabilities) == pytest.approx(wanted)
    two_choices = MultiCategorical(jnp.log(jnp.array([[0.25, 0.75, 0.5, 0.5]])), (2, 2))
    assert imitation_loss(two_choices, jnp.array([[1, 0]])) == pytest.approx(-np.log(0.75 * 0.5))


@pytest.mark.parametrize("continuous", [False, True])
def test_the_student_learns_what_the_teacher_plans(continuous):
    """From the observation, which says what the teacher finds by trying in the simulator."""
    simulator = Simulator(Probe("conditional", continuous=continuous))
    algorithm = Distillation(
        MPC(TEACHERS[continuous], simulator=simulator), learning_rate=1e-2, replay_size=500, hidden_sizes=(8,)
    )
    collector = ScanCollector(simulator, 4)
    state = training.init(algorithm, collector, jax.random.key(0), 1_500)
    *_, chunk = training.train(algorithm, collector, state, 1_500)
    behavior = algorithm.behavior(chunk.state.learner)
    result = evaluate(algorithm, behavior, simulator.env, episodes=16)  # not the simulator: it is needed no more
    assert result.mean > 0.95
    assert chunk.metrics["teacher/plan/value"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_who_acts(share):
    """With a share of 1 the teacher, with 0 the student; the lesson is the teacher's either way."""
    simulator = Simulator(Probe("action", continuous=True))
    algorithm = Distillation(MPC(TEACHERS[True], simulator=simulator), teacher_share=share, hidden_sizes=(8,))
    collector = ScanCollector(simulator, 4)
    state = training.init(algorithm, collector, jax.random.key(0), 64)
    behavior = algorithm.behavior(state.learner)
    _, trajectory = collector.collect(algorithm, behavior, state.actor, jax.random.key(1))
    np.testing.assert_allclose(trajectory.extras["lesson"], 0.5, atol=0.05)
    student = algorithm.act(behavior, state.actor.memory, -jnp.ones((4, 1)), jax.random.key(2), False)[0]
    teacher = trajectory.extras["lesson"]
    np.testing.assert_array_equal(trajectory.action, teacher if share else jnp.broadcast_to(student[:1], teacher.shape))


def test_a_teacher_that_learns():
    """It sees what was done, whoever chose it: Q-learning's table fills while the student is taught."""
    probe = Probe("action", tabular=True)
    teacher = QLearning(0.5, num_steps=16, epsilon=0.5)
    algorithm = Distillation(teacher, learning_rate=1e-2, replay_size=500, hidden_sizes=(8,))
    collector = ScanCollector(probe, 4)
    state = training.init(algorithm, collector, jax.random.key(0), 1_500)
    *_, chunk = training.train(algorithm, collector, state, 1_500)
    learner = chunk.state.learner
    assert np.asarray(learner.teacher.q[0]).tolist() == pytest.approx([-1.0, 1.0], abs=0.05)
    assert evaluate(algorithm, algorithm.behavior(learner), probe, episodes=4).mean == 1.0


def test_a_run_is_evaluated_and_deployed_without_the_simulator(tmp_path):
    algorithm = Distillation(
        MPC(TEACHERS[True]), num_steps=4, num_updates=2, minibatch_size=8, replay_size=32, hidden_sizes=(4,)
    )
    pa.train(algorithm, "jax:Pendulum-v1", 16, num_envs=2, run=tmp_path / "run", quiet=True)
    run = pa.load(tmp_path / "run")
    assert dataclasses.replace(run.algorithm, teacher=MPC(TEACHERS[True])) == algorithm
    assert run.algorithm.teacher.simulator == Simulator(Pendulum())
    assert len(run.evaluate(episodes=2).returns) == 2
    assert run.policy()(np.array([1.0, 0.0, 0.0], np.float32)).shape == (1,)
