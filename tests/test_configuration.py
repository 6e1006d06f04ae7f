"""config.json: what is written is read back equal, and a file cannot name anything but hyper-parameters."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import configuration
from parnassus.algorithms.ppo import PPO
from parnassus.algorithms.q_learning import QLearning
from parnassus.algorithms.sac import SAC
from parnassus.algorithms.td_prediction import TDPrediction
from parnassus.objectives import AdaptiveKL, Clip, FixedKL, Unclipped
from parnassus.presets import algorithm_name
from parnassus.schedules import Linear
from parnassus.types import BadInput


def through_json(algorithm):
    fields = json.loads(json.dumps(configuration.encode_fields(algorithm)))
    return configuration.decode_algorithm({"algorithm": algorithm_name(algorithm), "hyperparameters": fields})


@pytest.mark.parametrize(
    "algorithm",
    [
        PPO(),
        PPO(learning_rate=Linear(1e-3, 1 / 3, 0.7), objective=Clip(Linear(0.2)), hidden_sizes=(), activation="elu"),
        PPO(learning_rate=float(np.float32(1e-3)), discount=1, normalize_rewards=True),
        PPO(objective=AdaptiveKL(0.003), target_kl=0.02, temperature=Linear(0.1), value_clip_range=0.2),
        PPO(objective=FixedKL(Linear(3.0)), value_clip_range=Linear(0.2)),
        PPO(objective=Unclipped()),
        SAC(target_entropy=-0.5),
        SAC(target_entropy=None),
        QLearning(epsilon=0.5),
    ],
)
def test_round_trip(algorithm):
    assert through_json(algorithm) == algorithm


def test_numbers_of_other_kinds():
    assert configuration.encode(np.float32(0.5)) == 0.5
    assert configuration.encode(jnp.float32(0.5)) == 0.5
    assert configuration.encode(np.int64(3)) == 3
    assert configuration.is_opaque(configuration.encode(jnp.zeros(3, int)))
    assert configuration.is_opaque(configuration.encode(print))


def test_tables_keep_their_numbers():
    policy = jnp.array([[0.1, 0.9], [1 / 3, 2 / 3]])
    algorithm = through_json(TDPrediction(policy=policy))
    assert (algorithm.policy == policy).all() and algorithm.policy.dtype == policy.dtype
    fields = {**configuration.encode_fields(TDPrediction()), "policy": {"array": [[0.5], "x"]}}
    with pytest.raises(BadInput, match="policy is no table of numbers"):
        configuration.decode_algorithm({"algorithm": "td-prediction", "hyperparameters": fields})


class Clip2(Clip):
    """A user's own, which has the name of none of ours."""


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"network": {"object": "MyNet()"}}, r"cannot rebuild ppo.network = MyNet\(\): pass algorithm= in Python"),
        ({"objective": {"os.system": {"command": "true"}}}, "unknown kind of hyper-parameter 'os.system'"),
        ({"objective": {"Clip": {"clip_rnage": 0.1}}}, "ppo.objective.Clip.clip_rnage, .* did you mean clip_range"),
        ({"objective": {"Linear": {"start": 0.1}}}, "ppo.objective cannot be Linear"),
        ({"objective": {"Clip": 3}}, "ppo.objective.Clip is 3, not an object"),
        ({"objective": {"Clip": {}, "Linear": {}}}, "ppo.objective is"),
        ({"learning_rate": "fast"}, "ppo.learning_rate cannot be 'fast'"),
        ({"num_steps": 0.5}, "ppo.num_steps cannot be 0.5"),
        ({"num_steps": True}, "ppo.num_steps cannot be True"),
        ({"hidden_sizes": [64, "many"]}, r"ppo.hidden_sizes cannot be \(64, 'many'\)"),
        ({"activation": "sigmoid"}, "ppo.activation cannot be 'sigmoid'"),
        ({"momentum": 0.9}, "ppo.momentum, which this version does not have"),
    ],
)
def test_what_a_file_cannot_say(fields, message):
    with pytest.raises(BadInput, match=message):
        configuration.decode_algorithm({"algorithm": "ppo", "hyperparameters": fields})


def test_a_users_own_dataclass_keeps_its_repr():
    encoded = configuration.encode_fields(PPO(objective=Clip2(0.1)))
    assert configuration.is_opaque(encoded["objective"]) and "Clip2" in encoded["objective"]["object"]


def a_config(**changes):
    return {
        "format": configuration.FORMAT,
        "algorithm": "ppo",
        "hyperparameters": {},
        "env": "CartPole-v1",
        "env_options": {},
        "num_envs": 2,
        "asynchronous": False,
        "steps": 10,
        "chunk_iterations": 1,
        "exact_resume": True,
        "target_return": None,
        "seed": 0,
        **changes,
    }


def test_write_and_read(tmp_path):
    configuration.write(tmp_path, a_config())
    assert configuration.read(tmp_path) == a_config()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "config.json is broken"),
        ("[]", "config.json is broken"),
        (json.dumps(a_config(format=99)), "has the format 99, but this version reads 1"),
        (json.dumps(a_config(num_envs="two")), "num_envs is 'two', not int"),
        (json.dumps(a_config(num_envs=True)), "num_envs is True, not int"),
        (json.dumps(a_config(env=3)), "env is 3, not text or an object"),
        (json.dumps(a_config(seeds="all")), "seeds is 'all'"),
        (json.dumps(a_config(seeds=["../../elsewhere"])), "seeds is "),
    ],
)
def test_broken_files(content, message, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadInput, match=message):
        configuration.read(tmp_path)


def test_description_has_versions_and_machine():
    description = configuration.describe()
    assert description["versions"]["jax"] == jax.__version__
    assert description["versions"]["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert sum(description["devices"].values()) == jax.device_count()
    json.dumps(description)


@pytest.mark.slow
@pytest.mark.parametrize("cache", [None, "elsewhere"])
def test_configure(cache, tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        environment.pop(name, None)
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / cache)
    program = (
        "import jax\n"
        "import parnassus.run\n"
        "from parnassus.configuration import configure\n"
        f"assert jax.config.jax_compilation_cache_dir == {str(tmp_path / cache) if cache else None!r}\n"
        "configure(several_seeds=True)\n"
        "values = jax.config.values\n"
        "print(jax.config.jax_compilation_cache_dir, values['jax_cpu_enable_async_dispatch'], jax.device_count())\n"
        "assert values['jax_persistent_cache_min_compile_time_secs'] == 0.1\n"
        "configure(several_seeds=True)\n"
    )
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    directory = tmp_path / (cache or "parnassus/xla")
    assert process.stdout.split() == [str(directory), "False", str(len(os.sched_getaffinity(0)))]
