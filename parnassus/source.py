"""Where a run's experience comes from: the environments that the user named, and what collects from them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from parnassus import envs, training
from parnassus.collect import HostCollector, ScanCollector, collector_for, is_on_host
from parnassus.distributed import asynchronous
from parnassus.distributed.crews import Workers
from parnassus.simulator import Simulator, informed
from parnassus.types import Algorithm, AsynchronousAlgorithm, Env

Environment = str | Env | Callable[..., Any]  # a name, a JAX environment, a function that makes a gymnasium.Env
Source = ScanCollector | HostCollector | Workers


def make(
    env: Environment, num_envs: int, config: Mapping[str, Any], options: Mapping[str, Any] | None = None
) -> Env | Any:
    """The environments of a config.json; `options` where it cannot say them. Raises BadInput as `envs.make` does."""
    return envs.make(env, num_envs, config["asynchronous"], **(config["env_options"] if options is None else options))


def driver_of(algorithm: Algorithm) -> Any:
    """The module whose `init` and `train` run the algorithm: its methods say whether workers wait for each other."""
    return asynchronous if isinstance(algorithm, AsynchronousAlgorithm) else training


def source_of(
    algorithm: Algorithm, env: Environment, config: Mapping[str, Any], options: Mapping[str, Any] | None = None
) -> tuple[Algorithm, Source]:
    """What collects for the algorithm, and the algorithm, which may plan there. Raises BadInput as `make` does."""
    num_envs, exact_resume = config["num_envs"], config["exact_resume"]
    if driver_of(algorithm) is asynchronous:
        return algorithm, Workers(partial(make, env, 1, config, options), num_envs, exact_resume)
    algorithm, place = with_simulator(algorithm, make(env, num_envs, config, options))
    return algorithm, collector_for(place, num_envs, exact_resume)


def with_simulator(algorithm: Any, env: Any, acts_only: bool = False) -> tuple[Any, Any]:
    """An algorithm that plans in the environment itself gets it, and sees its state; others stay as they are."""
    if is_on_host(env) or (acts_only and getattr(algorithm, "acts_without_simulator", False)):
        return algorithm, env
    simulator = Simulator(env)
    changed = informed(algorithm, simulator)
    return (algorithm, env) if changed is algorithm else (changed, simulator)


def close(env: Any) -> None:
    """Close environments on the host, which have something to close."""
    if hasattr(env, "close"):
        env.close()


def env_name(env: Any) -> str:
    """What to call it in a sentence; `env` may also come of a config.json."""
    if isinstance(env, str):
        return env
    if isinstance(env, dict):
        return str(env.get("object"))
    return getattr(env, "__name__", None) or type(env).__name__
