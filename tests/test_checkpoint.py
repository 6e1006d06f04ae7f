"""Checkpoints: every bit comes back, and whatever happens to the newest, the last good one stays."""

import json
import re
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parnassus import checkpoint
from parnassus.types import BadInput

DTYPES = ["float32", "float16", "bfloat16", "int8", "int16", "int32", "uint8", "uint16", "uint32", "bool"]


def tree(value=1.0):
    """Every dtype, special floats, scalars, empty arrays, keys, and every kind of container."""
    special = jnp.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, value], jnp.float32)
    return {
        "dtypes": {name: jnp.arange(6).reshape(2, 3).astype(name) for name in DTYPES},
        "special": special,
        "scalar": np.float32(value),
        "numpy": np.arange(3, dtype=np.int32),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "empty": (jnp.zeros((0, 3)), ()),
        "keys": [jax.random.key(7), jax.random.split(jax.random.key(8), 3)],
    }


def bits(leaf):
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    return array.dtype, array.shape, array.tobytes()


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert bits(x) == bits(y), jax.tree_util.keystr(path)


def test_round_trip(tmp_path):
    checkpoint.save(tmp_path, tree(), 12)
    loaded, steps, notes = checkpoint.load(tmp_path, tree(0.0))
    assert (steps, notes) == (12, [])
    assert_same(loaded, tree())
    assert jax.dtypes.issubdtype(loaded["keys"][0].dtype, jax.dtypes.prng_key)


def test_a_template_without_arrays_is_enough(tmp_path):
    checkpoint.save(tmp_path, tree(), 12)
    loaded, _, _ = checkpoint.load(tmp_path, jax.eval_shape(tree))
    assert_same(loaded, tree())


def test_what_is_loaded_may_be_donated(tmp_path):
    """Buffers of their own: consuming one leaf leaves the file and the other leaves alone."""
    checkpoint.save(tmp_path, {"x": np.arange(4.0, dtype=np.float32)}, 1)
    loaded, _, _ = checkpoint.load(tmp_path, {"x": np.zeros(4, np.float32)})
    jax.jit(lambda x: x + 1, donate_argnums=0)(loaded["x"])
    again, _, _ = checkpoint.load(tmp_path, {"x": np.zeros(4, np.float32)})
    assert again["x"].tolist() == [0, 1, 2, 3]


def test_the_newest_few_are_kept(tmp_path):
    for steps in (1, 20, 300):
        checkpoint.save(tmp_path, {"x": np.float32(steps)}, steps, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{steps:012d}.{suffix}" for steps in (20, 300) for suffix in ("json", "safetensors")
    ]
    assert checkpoint.load(tmp_path, {"x": np.float32(0)})[1] == 300
    assert checkpoint.load(tmp_path, {"x": np.float32(0)}, newest=299)[1] == 20


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from parnassus import checkpoint

moment, directory = sys.argv[1], Path(sys.argv[2])
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
new = {"x": np.full(1000, 2.0, np.float32)}

if moment == "half of the arrays are written":
    save_file = checkpoint.safetensors.numpy.save_file
    def half(named, path):
        save_file(named, path)
        with open(path, "rb+") as file:
            file.truncate(path.stat().st_size // 2)
        die()
    checkpoint.safetensors.numpy.save_file = half
elif moment == "before the arrays are in place":
    os.replace = die
else:
    replace, calls = os.replace, []
    def second(*names):
        calls.append(names)
        die() if len(calls) == 2 else replace(*names)
    os.replace = second
checkpoint.save(directory, new, 20)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    ["half of the arrays are written", "before the arrays are in place", "before the manifest is in place"],
)
def test_killed_while_writing(moment, tmp_path):
    old = {"x": np.full(1000, 1.0, np.float32)}
    checkpoint.save(tmp_path, old, 10)
    process = subprocess.run([sys.executable, "-c", KILLED, moment, str(tmp_path)], timeout=120)
    assert process.returncode == -signal.SIGKILL
    loaded, steps, _ = checkpoint.load(tmp_path, old)
    assert steps == 10
    assert_same(loaded, jax.tree.map(jnp.asarray, old))
    checkpoint.save(tmp_path, {"x": np.full(1000, 3.0, np.float32)}, 20)  # what was left is not in the way
    assert checkpoint.load(tmp_path, old)[1] == 20


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "manifest"])
def test_a_broken_newest_is_passed_over(damage, tmp_path):
    checkpoint.save(tmp_path, {"x": np.float32(1)}, 10)
    path = checkpoint.save(tmp_path, {"x": np.float32(2)}, 20)
    arrays = path.with_suffix(".safetensors")
    content = bytearray(arrays.read_bytes())
    match damage:
        case "truncated":
            arrays.write_bytes(content[:-2])
            why = r"the checksum of 000000000020\.safetensors is wrong"
        case "flipped":
            content[-1] ^= 64
            arrays.write_bytes(content)
            why = r"the checksum of 000000000020\.safetensors is wrong"
        case "missing":
            arrays.unlink()
            why = r"000000000020\.safetensors is missing"
        case "manifest":
            path.write_text("{")
            why = "Expecting property name"
    loaded, steps, notes = checkpoint.load(tmp_path, {"x": np.float32(0)})
    assert (float(loaded["x"]), steps) == (1.0, 10)
    assert len(notes) == 2
    assert re.match(f"checkpoint 000000000020 is broken .*{why}", notes[0])
    assert notes[1] == "using the last good checkpoint instead, of step 10"


def test_no_good_checkpoint(tmp_path):
    with pytest.raises(BadInput, match="holds no checkpoint"):
        checkpoint.load(tmp_path, {"x": np.float32(0)})
    path = checkpoint.save(tmp_path, {"x": np.float32(2)}, 20)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(BadInput, match="holds no checkpoint that is whole: .*its format is 99, this version reads 1"):
        checkpoint.load(tmp_path, {"x": np.float32(0)})


@pytest.mark.parametrize(
    "template, message",
    [
        ({"x": np.zeros(3, np.float32)}, r"does not fit: x is float32\[2\] there, but float32\[3\] here"),
        ({"x": np.zeros(2, np.int32)}, r"does not fit: x is float32\[2\] there, but int32\[2\] here"),
        ({"x": np.zeros(2, np.float32), "y": np.float32(0)}, "y is missing"),
        ({}, "x is not part of this one"),
        ({"x": jax.eval_shape(lambda: jax.random.key(0))}, r"x is float32\[2\] there, but uint32\[2\] here"),
    ],
)
def test_another_tree(template, message, tmp_path):
    checkpoint.save(tmp_path, {"x": np.zeros(2, np.float32)}, 1)
    with pytest.raises(BadInput, match=message):
        checkpoint.load(tmp_path, template)


def test_loading_runs_no_code(tmp_path):
    """A pickle in place of the arrays is bytes with a wrong checksum; with the right one it is no safetensors file."""
    import hashlib
    import pickle

    class Trap:
        def __reduce__(self):
            return exec, ("raise SystemExit('the trap sprang')",)

    path = checkpoint.save(tmp_path, {"x": np.float32(2)}, 20)
    content = pickle.dumps(Trap())
    path.with_suffix(".safetensors").write_bytes(content)
    manifest = json.loads(path.read_text()) | {"sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="holds no checkpoint that is whole"):
        checkpoint.load(tmp_path, {"x": np.float32(0)})
