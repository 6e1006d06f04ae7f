"""config.json: everything needed to repeat a run, as plain JSON; and how JAX is set up before it starts.

Reading one builds only the algorithms and dataclasses that `presets` lists: a file cannot name code to run.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
import types
import typing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from parnassus.presets import ALGORITHMS, PARTS, algorithm_class, part_class, suggest
from parnassus.simulator import Simulator
from parnassus.types import Algorithm, BadInput

FORMAT = 1  # raise it when the meaning of config.json changes
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "gymnasium", "gymnax", "envpool", "mujoco")
_ARRAY = "array"  # the key under which float32 tables keep their numbers
_UNNAMEABLE = "object"  # the key under which a value that JSON cannot hold keeps its repr, for people to read


def configure(several_seeds: bool = False) -> None:
    """Set JAX up for this library; what was set before, or by environment variables, stays.

    Nothing of it has an effect on programs that JAX has already compiled, or on a backend that has started.
    """
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        # A host loop waits for each action anyway: without a thread in between that takes a quarter of the time.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    current: Any = jax.config  # its fields are made at run time
    if current.jax_enable_compilation_cache:
        if current.jax_compilation_cache_dir is None:
            jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            # JAX's own second would leave out most of what a run compiles.
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    flags = os.environ.get("XLA_FLAGS", "")
    if several_seeds and current.jax_num_cpu_devices < 1 and "xla_force_host_platform_device_count" not in flags:
        # The seeds spread over devices, so devices are cores; where the backend has started, they share what it has.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", _cores())


def cache_directory() -> Path:
    """Where this user's compiled programs are kept; JAX_COMPILATION_CACHE_DIR names another place."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parnassus" / "xla"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Versions, machine, command and time: what else a run depends on."""
    from parnassus import __version__

    versions = {"parnassus": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    devices = [device.device_kind for device in jax.devices()]
    return {
        "versions": versions,
        "platform": platform.platform(),
        "devices": {kind: devices.count(kind) for kind in sorted(set(devices))},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write(directory: Path, config: dict[str, Any]) -> None:
    """Write config.json whole."""
    temporary = directory / "config.json.tmp"
    temporary.write_text(json.dumps(config, indent=1) + "\n")
    os.replace(temporary, directory / "config.json")


def read(directory: Path) -> dict[str, Any]:
    """The run's config.json. Raises BadInput if there is none, or it is broken or of another version."""
    path = directory / "config.json"
    if not directory.is_dir():
        raise BadInput(f"there is no run directory {directory}")
    if not path.exists():
        state = "is empty" if not any(directory.iterdir()) else "has no config.json"
        raise BadInput(f"{directory} is not a run directory: it {state}")
    try:
        config = json.loads(path.read_text())
        known = config["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is broken ({type(error).__name__}: {error})") from error
    if not known:
        raise BadInput(f"{path} has the format {config['format']!r}, but this version reads {FORMAT}")
    for name, kind in _FIELDS.items():
        if not isinstance(config.get(name), kind) or (kind is int and isinstance(config[name], bool)):
            raise BadInput(f"{path} is broken: {name} is {config.get(name)!r}, not {_kind_name(kind)}")
    seeds = config.get("seeds", [0])  # they name directories
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise BadInput(f"{path} is broken: seeds is {seeds!r}, not a list of int")
    return config


_FIELDS: dict[str, Any] = {
    "algorithm": str,
    "hyperparameters": dict,
    "env": (str, dict),
    "env_options": dict,
    "num_envs": int,
    "asynchronous": bool,
    "steps": int,
    "chunk_iterations": int,
    "exact_resume": bool,
    "target_return": (int, float, type(None)),
}


def _kind_name(kind: Any) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(
        {"str": "text", "dict": "an object", "NoneType": "null"}.get(k.__name__, k.__name__) for k in kinds
    )


def encode(value: Any) -> Any:
    """A hyper-parameter, or a dataclass of them, as JSON; what has no honest JSON is kept as its repr."""
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Simulator):
        return None  # it is made of the environment, which has a name of its own
    if isinstance(value, tuple | list):
        return [encode(part) for part in value]
    if isinstance(value, np.ndarray | jax.Array) and value.dtype == np.float32:
        return {_ARRAY: value.tolist()}
    if type(value).__name__ in PARTS and type(value) is part_class(type(value).__name__):
        return {type(value).__name__: encode_fields(value)}
    return {_UNNAMEABLE: repr(value)}


def encode_fields(config: Any) -> dict[str, Any]:
    """Every field of a dataclass."""
    if not dataclasses.is_dataclass(config):
        return {_UNNAMEABLE: repr(config)}
    return {field.name: encode(getattr(config, field.name)) for field in dataclasses.fields(config)}


def decode_algorithm(config: dict[str, Any]) -> Algorithm:
    """The algorithm of a config.json. Raises BadInput if it cannot be rebuilt from there."""
    name = config["algorithm"]
    if name not in ALGORITHMS:
        raise BadInput(
            f"config.json cannot rebuild the algorithm {name}, which is none of ours: pass algorithm= in Python"
        )
    return _build(algorithm_class(name), config["hyperparameters"], name)


def is_opaque(value: Any) -> bool:
    """Whether JSON keeps only the repr of this."""
    return isinstance(value, dict) and set(value) == {_UNNAMEABLE}


def _build(cls: type[Any], fields: Any, where: str) -> Any:
    known = {field.name: field for field in dataclasses.fields(cls)}
    if not isinstance(fields, dict):
        raise BadInput(f"config.json is broken: {where} is {fields!r}, not an object")
    for name in fields:
        if name not in known:
            raise BadInput(
                f"config.json names {where}.{name}, which this version does not have; {suggest(name, known)}"
            )
    return cls(**{name: _decode(value, known[name].type, f"{where}.{name}") for name, value in fields.items()})


def _decode(value: Any, annotation: Any, where: str) -> Any:
    if is_opaque(value):
        raise BadInput(f"config.json cannot rebuild {where} = {value[_UNNAMEABLE]}: pass algorithm= in Python")
    if isinstance(value, list):
        value = tuple(value)
    elif isinstance(value, dict):
        if len(value) != 1:
            raise BadInput(f"config.json is broken: {where} is {value!r}")
        ((name, fields),) = value.items()
        if name == _ARRAY:
            return _decode_array(fields, where)
        value = _build(part_class(name), fields, f"{where}.{name}")
    if not fits(value, annotation):
        raise BadInput(f"config.json is broken: {where} cannot be {value!r}")
    return value


def _decode_array(numbers: Any, where: str) -> Any:
    try:
        return jax.numpy.asarray(np.array(numbers, np.float32))
    except (TypeError, ValueError) as error:
        raise BadInput(f"config.json is broken: {where} is no table of numbers") from error


def members(annotation: Any) -> tuple[Any, ...]:
    """The kinds of value that an annotation allows, without what is said about them."""
    if typing.get_origin(annotation) is typing.Annotated:
        return members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(kind for part in typing.get_args(annotation) for kind in members(part))
    return (annotation,)


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of an annotated kind; whole numbers are real numbers too."""
    for kind in members(annotation):
        origin = typing.get_origin(kind) or kind
        if origin is typing.Literal:
            matches = value in typing.get_args(kind)
        elif origin is tuple and isinstance(value, tuple):
            matches = all(fits(part, typing.get_args(kind)[0]) for part in value)
        elif origin in (int, float):
            matches = isinstance(value, (int, float) if origin is float else int) and not isinstance(value, bool)
        else:
            matches = isinstance(origin, type) and isinstance(value, origin)
        if matches:
            return True
    return False
