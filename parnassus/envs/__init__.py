"""Environments by name: `make` finds one, `names` lists them. Adapters are imported when they are asked for."""

import importlib.util
from collections.abc import Callable
from typing import Any

import gymnasium as gym  # not `gymnasium`: that name becomes our submodule, once it is imported

from parnassus.types import BadInput, Env, HostEnv

_CLASSIC: dict[str, tuple[str, dict[str, Any]]] = {  # name -> (class, options)
    "CartPole-v1": ("CartPole", {}),
    "Pendulum-v1": ("Pendulum", {}),
    "ContinuousCartPole": ("CartPole", {"continuous": True, "max_steps": 200}),
    "CartPoleSwingUp": ("CartPoleSwingUp", {"repeat": 8}),  # as in Hafner et al. 2019
}
_TABLES = ("FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "CliffWalkingSlippery-v1", "Taxi-v4")


def make(
    env: str | Env | Callable[..., Any], num_envs: int = 1, asynchronous: bool = False, **options: Any
) -> Env | HostEnv:
    """The environment that `env` names, makes or is.

    | env                                  | result                                                                  |
    |--------------------------------------|-------------------------------------------------------------------------|
    | "jax:NAME"                           | an Env: one of our own                                                  |
    | "gymnax:NAME"                        | an Env                                                                  |
    | an Env                               | itself, or (if it is no pytree) wrapped so that compiled code can take it |
    | "envpool:NAME", "atari:NAME"         | a HostEnv of `num_envs` copies                                          |
    | another string                       | a HostEnv of `num_envs` copies of the Gymnasium environment of this id  |
    | a function that makes either kind    | what the environment it makes would give                                |

    `options` go to whatever makes the environment; `asynchronous` (Gymnasium only) runs each copy in its own process.
    Raises BadInput for anything else, with the names that come close.
    """
    if isinstance(env, str):
        prefix, colon, name = env.partition(":")
        if prefix == "envpool" and colon:
            from parnassus.envs.envpool import EnvPoolEnvs

            _refuse_asynchronous(asynchronous, env)
            return EnvPoolEnvs(name, num_envs, **options)
        if prefix == "atari" and colon:
            from parnassus.envs.atari import AtariEnvs

            _refuse_asynchronous(asynchronous, env)
            return AtariEnvs(name, num_envs, **options)
        if prefix in ("jax", "gymnax") and colon:
            _refuse_asynchronous(asynchronous, env)
            return _make_jax(name, options) if prefix == "jax" else _make_gymnax(name, options)
        if colon and (not prefix.isidentifier() or importlib.util.find_spec(prefix) is None):
            raise BadInput(
                f"unknown environment {env!r}: before the colon goes jax, gymnax, envpool, atari "
                "or a module that registers Gymnasium environments"
            )
        return _make_gymnasium(env, num_envs, asynchronous, options)
    if isinstance(env, gym.Env | gym.vector.VectorEnv):
        raise BadInput(f"{env} is one environment, but copies are needed: give its id or a function that makes it")
    if isinstance(env, Env) and not isinstance(env, type):
        from parnassus.envs.wrap import as_pytree

        _refuse_asynchronous(asynchronous, type(env).__name__)
        if options:
            raise BadInput(f"an environment that is already made takes no options, but got {options}")
        return as_pytree(env)
    if callable(env):
        return _from_factory(env, num_envs, asynchronous, options)
    raise BadInput(
        f"an environment is a name, a function that makes a gymnasium.Env, or an object with reset, step, "
        f"observation_space and action_space, not {env!r}"
    )


def names() -> dict[str, list[str]]:
    """The names that `make` knows here, by family; families that are not installed are empty."""
    from parnassus.envs import atari, envpool, gymnax, textbook

    return {
        "jax": [f"jax:{name}" for name in (*_CLASSIC, *_TABLES, *textbook.WORLDS)],
        "gymnasium": _gymnasium_names(),
        "gymnax": [f"gymnax:{name}" for name in gymnax.names()],
        "envpool": [f"envpool:{name}" for name in envpool.names()],
        "atari": [f"atari:{name}" for name in atari.names()],
    }


def _gymnasium_names() -> list[str]:
    """Registered ids that a user would want: no bridges to old Gym, no JAX environments, none that can only raise."""
    return [
        name
        for name, spec in gym.registry.items()
        if not name.startswith(("GymV21", "GymV26", "phys2d/", "tabular/"))
        and getattr(spec.entry_point, "__module__", "") != "gymnasium.envs"  # MuJoCo v2 and v3 moved elsewhere
    ]


def _make_jax(name: str, options: dict[str, Any]) -> Env:
    if name in _TABLES:
        from parnassus.envs.mdp import FiniteMDP

        return FiniteMDP.from_gymnasium(name, **options)
    from parnassus.envs import classic, textbook
    from parnassus.envs.gymnasium import did_you_mean

    if name in textbook.WORLDS:
        return textbook.make(name, **options)
    if name not in _CLASSIC:
        known = (*_CLASSIC, *_TABLES, *textbook.WORLDS)
        raise BadInput(f"unknown environment 'jax:{name}'; {did_you_mean(name, known)}")
    try:
        kind, settings = _CLASSIC[name]
        return getattr(classic, kind)(**{**settings, **options})
    except TypeError as cause:
        raise BadInput(f"jax:{name} does not know an option of {options}") from cause


def _make_gymnax(name: str, options: dict[str, Any]) -> Env:
    from parnassus.envs import gymnax

    return gymnax.make(name, **options)


def _make_gymnasium(env: str | Callable, num_envs: int, asynchronous: bool, options: dict[str, Any]) -> HostEnv:
    from parnassus.envs.gymnasium import GymnasiumEnvs

    return GymnasiumEnvs(env, num_envs, asynchronous, **options)


def _from_factory(
    factory: Callable[..., Any], num_envs: int, asynchronous: bool, options: dict[str, Any]
) -> Env | HostEnv:
    """Only a call tells what a function makes."""
    made = factory(**options)
    if isinstance(made, gym.Env):
        made.close()
        return _make_gymnasium(factory, num_envs, asynchronous, options)
    if isinstance(made, str) or not isinstance(made, Env):
        raise BadInput(
            f"{factory!r} should make a gymnasium.Env or a JAX environment, but made a {type(made).__name__}"
        )
    return make(made, num_envs, asynchronous)


def _refuse_asynchronous(asynchronous: bool, env: str) -> None:
    if asynchronous:
        raise BadInput(f"asynchronous=True is for Gymnasium environments, not for {env}")
