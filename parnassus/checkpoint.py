"""Checkpoints: a safetensors file of arrays and a JSON manifest. Loading one reads numbers and text, never runs code.

`save` writes the arrays under a temporary name, syncs and renames them, then the manifest in the same way: a checkpoint
exists when its manifest does, and the manifest holds the arrays' SHA-256. `load` takes the newest one that is whole.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from parnassus.types import BadInput, Tree

FORMAT = 1  # raise it when the meaning of the files changes


def save(directory: Path, tree: Tree, steps: int, keep: int = 2) -> Path:
    """Write `tree` as the checkpoint of `steps` environment steps; the newest `keep` stay. Returns its manifest."""
    directory.mkdir(parents=True, exist_ok=True)
    named = {name: _to_numpy(leaf) for name, leaf in _named_leaves(tree).items()}
    arrays, manifest = (directory / f"{steps:012d}.{suffix}" for suffix in ("safetensors", "json"))
    _write_whole(arrays, lambda path: safetensors.numpy.save_file(named, path))
    content = {
        "format": FORMAT,
        "steps": steps,
        "sha256": _sha256(arrays),
        "tensors": {name: [str(x.dtype), list(x.shape)] for name, x in named.items()},
    }
    _write_whole(manifest, lambda path: path.write_text(json.dumps(content, indent=1)))
    for old in sorted(directory.glob("*.json"))[:-keep]:
        old.unlink()  # the manifest first: arrays without one are no checkpoint
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    return manifest


def load(directory: Path, template: Tree, newest: int | None = None) -> tuple[Tree, int, list[str]]:
    """(tree, steps, notes) of the newest whole checkpoint, of at most `newest` steps where that is given.

    `template` has its structure, shapes and dtypes. `notes` says which newer checkpoints were broken, a sentence each.
    Raises BadInput if there is no whole one, or if it holds other tensors than the template.
    """
    manifests = sorted(directory.glob("*.json"), reverse=True)
    if newest is not None:
        manifests = [path for path in manifests if path.stem <= f"{newest:012d}"]
    if not manifests:
        raise BadInput(f"{directory} holds no checkpoint")
    notes: list[str] = []
    for path in manifests:
        try:
            manifest, tensors = _read(path)
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            notes.append(f"checkpoint {path.stem} is broken ({error})")
            continue
        if notes:
            notes.append(f"using the last good checkpoint instead, of step {manifest['steps']:,}")
        return _fill(template, tensors, path), int(manifest["steps"]), notes
    raise BadInput(f"{directory} holds no checkpoint that is whole: " + "; ".join(notes))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A manifest and its arrays. Raises ValueError, and what reading raises, if anything is not as it was written."""
    manifest = json.loads(path.read_text())
    if manifest["format"] != FORMAT:
        raise ValueError(f"its format is {manifest['format']}, this version reads {FORMAT}")
    arrays = path.with_suffix(".safetensors")
    if not arrays.exists():
        raise ValueError(f"{arrays.name} is missing")
    if _sha256(arrays) != manifest["sha256"]:
        raise ValueError(f"the checksum of {arrays.name} is wrong")
    return manifest, safetensors.numpy.load_file(arrays)


def _fill(template: Tree, tensors: dict[str, np.ndarray], path: Path) -> Tree:
    expected = _named_leaves(template)
    for name in [*expected, *tensors]:
        if name not in tensors or name not in expected:
            where = "is missing" if name not in tensors else "is not part of this one"
            raise BadInput(f"checkpoint {path} is of another algorithm, network or environment: {name} {where}")
    leaves = []
    for name, leaf in expected.items():
        array, is_key = tensors[name], _is_key(leaf)
        want = jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf
        shape, dtype = tuple(np.shape(want)), np.dtype(jnp.result_type(want))
        if array.shape != shape or array.dtype != dtype:
            raise BadInput(
                f"checkpoint {path} does not fit: {name} is {array.dtype}{list(array.shape)} there, "
                f"but {dtype}{list(shape)} here"
            )
        # A copy of its own: the training loop donates these buffers.
        leaves.append(jax.random.wrap_key_data(jnp.array(array)) if is_key else jnp.array(array))
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _named_leaves(tree: Tree) -> dict[str, Any]:
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in jax.tree.leaves_with_path(tree)}


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(leaf, "dtype", np.dtype(float)), jax.dtypes.prng_key)


def _to_numpy(leaf: Any) -> np.ndarray:
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    return np.require(array, requirements="C")  # unlike `ascontiguousarray`, this keeps a scalar a scalar


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Run `write` on a temporary name, then put the file in place: readers see all of it or nothing."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
