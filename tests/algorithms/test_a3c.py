"""A3C: one worker is A2C with one environment, bit for bit; temperatures; the command line."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import training
from parnassus.algorithms.a2c import A2C
from parnassus.algorithms.a3c import A3C
from parnassus.cli import main
from parnassus.collect import ScanCollector
from parnassus.distributed import asynchronous
from parnassus.distributed.crews import Workers
from parnassus.distributions import Categorical
from parnassus.envs.classic import CartPole, Pendulum
from parnassus.run import load
from parnassus.schedules import Linear
from parnassus.types import AsynchronousAlgorithm, TrainState
from tests.probe_envs import Probe

FIELDS = {
    "learning_rate": Linear(7e-3),
    "hidden_sizes": (8,),
    "normalize_observations": True,
    "normalize_rewards": True,
    "entropy_coefficient": 0.01,
    "temperature": 0.05,
}


def alone(state):
    """The state of the only worker, as a synchronous loop has it."""
    actor = jax.tree.map(lambda x: x[0].copy(), state.actor)
    learner = jax.tree.map(jnp.copy, state.learner)
    return TrainState(learner, actor, jax.random.clone(state.key[0]), jnp.int32(0))


CASES = {
    "discrete": (CartPole(), {}),
    "continuous": (Pendulum(), {"optimizer": "adam", "gae_lambda": 0.9}),
    "shared network": (CartPole(), {"shared_network": True}),
}


def differences(case):
    """What differs after 40 updates: of parameters, g, normalisers, counters, and where the environment is."""
    env, fields = CASES[case]
    fields = {**FIELDS, **fields}
    workers = Workers(lambda: env, 1)
    start = asynchronous.init(A3C(**fields), workers, jax.random.key(0), 200)
    state = alone(start)
    *_, chunk = asynchronous.train(A3C(**fields), workers, start, 200, chunk_iterations=15)
    *_, reference = training.train(A2C(**fields), ScanCollector(env, 1), state, 200, chunk_iterations=15)
    ours, theirs = alone(chunk.state), reference.state
    assert int(ours.learner.progress.steps) == 200
    assert int(chunk.state.iteration) == int(theirs.iteration) == 40
    return [
        jax.tree_util.keystr(path)
        for (path, a), b in zip(
            jax.tree.leaves_with_path((ours.learner, ours.actor)),
            jax.tree.leaves((theirs.learner, theirs.actor)),
            strict=True,
        )
        if not np.array_equal(np.asarray(a), np.asarray(b))
    ]


@pytest.fixture(scope="module")
def compiled_as_for_users():
    """`differences` of each case in a process whose programs are compiled as users' are, not in haste as the tests'."""
    script = (
        "import json; from tests.algorithms.test_a3c import CASES, differences\n"
        "print(json.dumps({case: differences(case) for case in CASES}))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_one_worker_is_a2c_with_one_environment_bit_for_bit(case, compiled_as_for_users):
    assert compiled_as_for_users[case] == []


def test_its_two_halves_are_the_synchronous_update():
    algorithm = A3C(num_steps=5, hidden_sizes=(8,))
    assert isinstance(algorithm, AsynchronousAlgorithm)
    assert not isinstance(A2C(), AsynchronousAlgorithm)
    for field in dataclasses.fields(A2C):  # nothing of A2C is left out, or has another meaning
        assert getattr(algorithm.synchronous, field.name) == getattr(algorithm, field.name)


def segment(algorithm):
    collector = ScanCollector(CartPole(), 1)
    state = training.init(algorithm, collector, jax.random.key(0), 100)
    _, trajectory = collector.collect(
        training.arrays(algorithm), algorithm.behavior(state.learner), state.actor, jax.random.key(1)
    )
    return state.learner, trajectory


def test_gradients_change_nothing_and_apply_adds_its_step_to_what_it_finds():
    """The gradients of a copy, applied to another learner: the asynchronous case."""
    algorithm = A3C(learning_rate=0.1, num_steps=8, hidden_sizes=(8,), max_grad_norm=1e9)
    copy, trajectory = segment(algorithm)
    d, _ = algorithm.gradients(copy, trajectory, jax.random.key(0))
    now = copy._replace(
        networks=jax.tree.map(lambda x: x + 1.0, copy.networks),
        optimizer=jax.tree.map(lambda x: 0.0 * x + 4.0, copy.optimizer),
    )
    after = algorithm.apply(now, d, trajectory)
    for theta, step, new in zip(*map(jax.tree.leaves, (now.networks, d, after.networks)), strict=True):
        g = 0.99 * 4.0 + 0.01 * step**2
        np.testing.assert_allclose(new, theta - 0.1 * step / np.sqrt(g + 1e-5), rtol=1e-5, atol=1e-6)
    assert int(after.progress.steps) == 8


def test_temperatures_are_spread_over_the_workers():
    algorithm = A3C(exploration=2.0, exploration_ratio=4.0)
    np.testing.assert_allclose([algorithm.worker(i, 3).exploration for i in range(3)], [1.0, 2.0, 4.0])
    assert algorithm.worker(0, 1).exploration == 2.0
    assert A3C().worker(5, 8) == A3C()


def test_a_worker_explores_at_its_temperature_and_evaluation_knows_none():
    hot = A3C(exploration=3.0, hidden_sizes=(8,))
    learner, trajectory = segment(hot)
    observation = trajectory.observation[0]
    behavior = hot.behavior(learner)
    params = jax.tree.map(lambda x: 50.0 * x, behavior.policy.params)  # far from uniform
    behavior = behavior._replace(policy=dataclasses.replace(behavior.policy, params=params))
    logits = behavior.policy(behavior.encoder(observation)).logits
    action, _, extras = hot.act(behavior, (), observation, jax.random.key(0), True)
    np.testing.assert_allclose(extras["log_prob"], Categorical(logits / 3.0).log_prob(action), rtol=1e-5)
    cold, _, _ = hot.act(behavior, (), observation, jax.random.key(0), False)
    assert cold.tolist() == logits.argmax(-1).tolist()


def test_the_gradient_is_that_of_the_policy_that_acted():
    """At a temperature: of the log-probability of the actions taken, weighted with R - V, R summed from the back."""
    hot = A3C(exploration=2.0, num_steps=6, hidden_sizes=(), entropy_coefficient=0.0, value_coefficient=0.0)
    learner, trajectory = segment(hot)
    d, _ = hot.gradients(learner, trajectory, jax.random.key(0))
    value = learner.value(trajectory.observation)
    bootstrap = learner.value(trajectory.next_observation)[-1]
    assert not np.asarray(trajectory.done).any()
    returns, following = [], bootstrap
    for reward in trajectory.reward[::-1]:  # R <- r + gamma R, from the back
        following = reward + 0.99 * following
        returns.insert(0, following)
    advantage = jnp.stack(returns) - value

    def objective(policy):
        logits = policy(trajectory.observation).logits / 2.0
        return -(Categorical(logits).log_prob(trajectory.action) * advantage).mean()

    wanted = jax.grad(objective)(learner.networks.policy)
    for a, b in zip(jax.tree.leaves(d.policy), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_it_learns_at_different_temperatures_from_several_workers():
    algorithm = A3C(learning_rate=1e-2, num_steps=8, exploration_ratio=2.0, hidden_sizes=(16,))
    workers = Workers(lambda: Probe("conditional"), 4)
    state = asynchronous.init(algorithm, workers, jax.random.key(0), 8_000)
    *_, chunk = asynchronous.train(algorithm, workers, state, 8_000)
    shown = Probe("conditional").observe(jnp.arange(2))
    action, _, _ = algorithm.act(algorithm.behavior(chunk.state.learner), (), shown, jax.random.key(0), False)
    assert action.tolist() == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("env", ["CartPole-v1", "jax:CartPole-v1"])
def test_the_command_line_trains_resumes_and_evaluates(env, tmp_path, capfd):
    run = str(tmp_path / "run")
    assert main(["train", "a3c", env, "--steps", "2000", "--num-envs", "2", "--run", run, "--quiet"]) == 0
    assert load(run).steps >= 2000
    assert main(["resume", run, "--steps", "3000", "--quiet"]) == 0
    assert "2 asynchronous workers go on" in capfd.readouterr().err
    assert main(["evaluate", run, "--episodes", "2"]) == 0
    assert "return" in capfd.readouterr().out


def test_an_unknown_environment_is_told_before_anything_starts(tmp_path, capfd):
    assert main(["train", "a3c", "CartPol-v1", "--steps", "2000", "--run", str(tmp_path / "run")]) == 2
    assert "did you mean CartPole-v1" in capfd.readouterr().err
