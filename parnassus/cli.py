"""The command line. Options of `train` are generated from the algorithm's dataclass: names, defaults and help.

Bad input is one sentence on stderr and exit status 2; a run that fails is exit status 1; one that SIGINT or SIGTERM
stopped has saved and exits with 130 or 143. JAX is imported by the commands that need it, not by `--help`.
"""

import dataclasses
import difflib
import inspect
import io
import json
import os
import re
import signal
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

HELP = """\
usage: parnassus COMMAND ...

  train ALGORITHM ENVIRONMENT    train in a new run directory
      --steps 100_000            environment steps
      --seed 0                   or --seeds 16: that many in one program, on a JAX environment
      --run DIR                  default: runs/ALGORITHM-ENVIRONMENT-SEED
      --learning-rate 3e-4 ...   the algorithm's own: see parnassus train ALGORITHM --help
  resume DIR [--steps N]         go on with a run that was stopped, or plan more steps
  evaluate DIR [--episodes 100]  full episodes without exploration; --json for programs
  plot DIR [DIR ...]             learning curves to a PNG
  list algorithms|environments   what there is

  --version                      print the version

parnassus COMMAND --help says more. An example:

  parnassus train ppo CartPole-v1 --steps 100_000
  parnassus evaluate runs/ppo-CartPole-v1-0
"""


@dataclass(frozen=True)
class TrainOptions:
    """What `train` takes besides the algorithm's hyper-parameters."""

    steps: int | None = None  # environment steps in all; required
    seed: int = 0  # the same seed gives the same run
    seeds: int | None = None  # train so many seeds, counted from --seed, in one program; JAX environments only
    num_envs: int = 1  # environments side by side
    run: str | None = None  # the run directory; by default runs/ALGORITHM-ENVIRONMENT-SEED
    quiet: bool = False  # no progress bar
    asynchronous: bool = False  # Gymnasium environments in a process each
    exact_resume: bool = True  # host environments restart at every chunk, so that a resumed run has the same bits
    chunk_steps: int | None = None  # environment steps between two rows of metrics; by default a fiftieth of the run
    target_return: float | None = None  # stop when the mean episode return of a chunk reaches this


@dataclass(frozen=True)
class ResumeOptions:
    """What `resume` takes."""

    steps: int | None = None  # environment steps in all; by default what the run planned
    target_return: float | None = None  # stop when the mean episode return of a chunk reaches this
    quiet: bool = False  # no progress bar


@dataclass(frozen=True)
class EvaluateOptions:
    """What `evaluate` takes."""

    episodes: int = 100  # full episodes, without exploration
    seed: int = 0  # the same seed gives the same episodes
    json: bool = False  # print JSON


@dataclass(frozen=True)
class PlotOptions:
    """What `plot` takes."""

    output: str | None = None  # the PNG; by default curve.png in the (first) run directory


@dataclass(frozen=True)
class NoOptions:
    """For commands without any."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    from_shell = argv is None
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        if from_shell:  # `parnassus list environments | head`: do not fail again when Python flushes
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        from parnassus.types import BadInput, ParnassusError

        if not isinstance(error, ParnassusError):
            raise
        print(f"parnassus: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    command, *rest = arguments
    if command == "--version":
        from parnassus import __version__

        print(f"parnassus {__version__}")
        return 0
    if command not in _COMMANDS:
        kind = "option" if command.startswith("-") else "command"
        raise _bad_input(f"unknown {kind} {command!r}; {_suggest(command, [*_COMMANDS, '--help', '--version'])}")
    return _COMMANDS[command](rest)


def _train(arguments: list[str]) -> int:
    positional = _positional(arguments, 2)
    wants_help = "--help" in arguments or "-h" in arguments
    if not positional and wants_help:
        print(
            "usage: parnassus train ALGORITHM ENVIRONMENT --steps N [options]\n\n"
            f"algorithms: {', '.join(_algorithms())}; environments: parnassus list environments\n"
            "The options and their defaults: parnassus train ALGORITHM [ENVIRONMENT] --help"
        )
        return 0
    if not positional or (len(positional) < 2 and not wants_help):
        what = "an algorithm and an environment" if not positional else "an environment"
        raise _bad_input(f"train needs {what}, then the options: parnassus train ppo CartPole-v1 --steps 100_000")
    name, env = positional[0], positional[1] if len(positional) > 1 else None

    from parnassus.presets import preset

    algorithm, defaults = preset(name, env)
    own = _options(TrainOptions, defaults)
    hyperparameters = [option for option in _flatten(algorithm) if option.name not in {o.name for o in own}]
    values = _parse(f"parnassus train {' '.join(positional)}", [*own, *hyperparameters], arguments[len(positional) :])
    chosen = {option.name: values[option.name] for option in own}
    algorithm = _rebuild(algorithm, {option.path: values[option.name] for option in hyperparameters})
    if chosen["steps"] is None:
        raise _bad_input(f"train needs --steps: parnassus train {' '.join(positional)} --steps 100_000")
    count = chosen.pop("seeds")
    if count is not None and count < 1:
        raise _bad_input(f"seeds must be a whole number of at least 1, not {count}")
    seeds = None if count is None else range(chosen["seed"], chosen["seed"] + count)

    from parnassus import run

    result = run.train(algorithm, env, seeds=seeds, **chosen)
    _say_where(result, chosen["quiet"])
    return 0


def _resume(arguments: list[str]) -> int:
    directory, values = _directory_and_options("resume", ResumeOptions, arguments)
    from parnassus import run

    result = run.resume(directory, **values)
    _say_where(result, values["quiet"])
    return 0


def _say_where(result: Any, quiet: bool) -> None:
    if not quiet:
        print(f"{result.steps:,} steps; evaluate with: parnassus evaluate {result.directory}")


def _evaluate(arguments: list[str]) -> int:
    directory, values = _directory_and_options("evaluate", EvaluateOptions, arguments)
    from parnassus import run

    loaded = run.load(directory)
    runs = [loaded] if isinstance(loaded, run.Run) else list(loaded)
    results = [one.evaluate(values["episodes"], values["seed"]) for one in runs]
    rows = [
        {
            "directory": str(one.directory),
            "steps": one.steps,
            "episodes": values["episodes"],
            "seed": values["seed"],
            "mean": result.mean,
            "interval": list(result.interval) if values["episodes"] > 1 else None,
            "returns": [float(x) for x in result.returns],
            "lengths": [int(x) for x in result.lengths],
        }
        for one, result in zip(runs, results, strict=True)
    ]
    if values["json"]:
        print(json.dumps(rows[0] if isinstance(loaded, run.Run) else rows))
        return 0
    for one, result in zip(runs, results, strict=True):
        print(result if len(runs) == 1 else f"{one.directory.name}: {result}")
    if len(runs) > 1:
        from parnassus.statistics import bootstrap_interval, interquartile_mean

        means = [result.mean for result in results]
        low, high = bootstrap_interval(means)
        print(f"interquartile mean {interquartile_mean(means):.2f} (95% interval {low:.2f} to {high:.2f})")
    return 0


def _plot(arguments: list[str]) -> int:
    directories = _positional(arguments, len(arguments))
    values = _parse("parnassus plot DIR [DIR ...]", _options(PlotOptions), arguments[len(directories) :])
    if not directories:
        raise _bad_input("plot needs run directories: parnassus plot runs/ppo-CartPole-v1-0 --output curve.png")
    from parnassus.plotting import plot

    print(plot([Path(directory) for directory in directories], values["output"] and Path(values["output"])))
    return 0


def _list(arguments: list[str]) -> int:
    what = _positional(arguments, 1)
    _parse("parnassus list algorithms|environments", [], arguments[len(what) :])
    kinds = ["algorithms", "environments"]
    if not what or what[0] not in kinds:
        asked = f" not {what[0]!r};" if what else ""
        raise _bad_input(f"list takes algorithms or environments,{asked} as in: parnassus list algorithms")
    if what[0] == "algorithms":
        from parnassus.presets import algorithm_class

        for name in _algorithms():
            summary = (inspect.getdoc(inspect.getmodule(algorithm_class(name))) or "").splitlines()[0]
            print(f"{name:12} {summary}")
        return 0
    from parnassus import envs

    for family in envs.names().values():
        for name in family:
            print(name)
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "resume": _resume,
    "evaluate": _evaluate,
    "plot": _plot,
    "list": _list,
}


def _algorithms() -> list[str]:
    from parnassus.presets import ALGORITHMS

    return list(ALGORITHMS)


def _directory_and_options(command: str, cls: type, arguments: list[str]) -> tuple[str, dict[str, Any]]:
    directory = _positional(arguments, 1)
    values = _parse(f"parnassus {command} DIR", _options(cls), arguments[len(directory) :])
    if not directory:
        raise _bad_input(f"{command} needs a run directory: parnassus {command} runs/ppo-CartPole-v1-0")
    return directory[0], values


def _positional(arguments: list[str], most: int) -> list[str]:
    """What comes before the first option."""
    first_option = next((i for i, token in enumerate(arguments) if token.startswith("-")), len(arguments))
    return arguments[: min(first_option, most)]


@dataclass(frozen=True)
class _Option:
    """An option of the command line."""

    name: str  # of the field
    path: tuple[str, ...]  # of the field, through nested dataclasses
    annotation: Any
    default: Any
    help: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        return self.annotation is bool


def _options(cls: type, defaults: dict[str, Any] | None = None) -> list[_Option]:
    """The options of a dataclass that has defaults."""
    instance = dataclasses.replace(cls(), **(defaults or {}))
    return _flatten(instance)


def _flatten(config: Any, path: tuple[str, ...] = ()) -> list[_Option]:
    """An option for each field; a field that is itself a dataclass of options gives its own fields instead."""
    comments = _comments(type(config))
    options = []
    for field in dataclasses.fields(config):
        value, where = getattr(config, field.name), (*path, field.name)
        if dataclasses.is_dataclass(value) and not _is_value(field.type):
            options += _flatten(value, where)
        elif _is_value(field.type):
            options.append(_Option(field.name, where, field.type, value, comments.get(field.name, "")))
    return options


def _is_value(annotation: Any) -> bool:
    """Whether text can say it: numbers, words, tuples of numbers, schedules; not networks."""
    kinds = [typing.get_origin(kind) or kind for kind in _members(annotation)]
    return any(kind in (int, float, bool, str, tuple, typing.Literal) for kind in kinds)


def _members(annotation: Any) -> tuple[Any, ...]:
    from parnassus.configuration import members

    return members(annotation)


def _comments(cls: type) -> dict[str, str]:
    """What the comment behind each field says."""
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return {}
    return dict(re.findall(r"^\s+(\w+)\s*:[^\n#]*#\s*(.*)$", source, re.MULTILINE))


def _rebuild(config: Any, values: dict[tuple[str, ...], Any]) -> Any:
    """The dataclass with values put in at their paths."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        inner = {path[1:]: value for path, value in values.items() if path[0] == field.name}
        if () in inner:
            changes[field.name] = inner[()]
        elif inner:
            changes[field.name] = _rebuild(getattr(config, field.name), inner)
    return dataclasses.replace(config, **changes)


def _parse(prog: str, options: list[_Option], arguments: list[str]) -> dict[str, Any]:
    """The options' values. Raises BadInput in one sentence; `--help` prints and exits."""
    import tyro

    fields = [
        (
            option.name,
            bool
            if option.is_switch
            else Annotated[
                option.annotation,
                tyro.constructors.PrimitiveConstructorSpec(
                    nargs=1,
                    metavar=_metavar(option.annotation),
                    instance_from_str=lambda texts, option=option: _value(option, texts[0]),
                    is_instance=lambda instance: True,
                    str_from_instance=lambda instance: [_text(instance)],
                ),
            ],
            dataclasses.field(default=option.default),
        )
        for option in options
    ]
    fields = [
        (name, Annotated[kind, tyro.conf.arg(help=option.help)], field)
        for (name, kind, field), option in zip(fields, options, strict=True)
    ]
    cls = dataclasses.make_dataclass("options", fields)
    captured = io.StringIO()
    try:
        with redirect_stderr(captured):
            parsed, unknown = tyro.cli(cls, prog=prog, description="", args=arguments, return_unknown_args=True)
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        raise _bad_input(_why(options, arguments)) from None
    if unknown:
        flags = [flag for option in options for flag in _flags(option)]
        stray = unknown[0].partition("=")[0]
        if stray.startswith("-"):
            raise _bad_input(f"unknown option {stray}; {_suggest(stray, [*flags, '--help'], f'see {prog} --help')}")
        raise _bad_input(f"unexpected argument {stray!r}; options have a name, see {prog} --help")
    return {option.name: getattr(parsed, option.name) for option in options}


def _flags(option: _Option) -> list[str]:
    return [option.flag, "--no-" + option.flag[2:]] if option.is_switch else [option.flag]


def _why(options: list[_Option], arguments: list[str]) -> str:
    """What is wrong with arguments that the parser refused: a value is missing, or there is one too many."""
    for i, token in enumerate(arguments):
        for option in options:
            if (
                token == option.flag
                and not option.is_switch
                and (i + 1 == len(arguments) or arguments[i + 1][:2] == "--")
            ):
                return f"{option.flag} needs a value ({_metavar(option.annotation)})"
            flag, equals, _ = token.partition("=")
            if option.is_switch and equals and flag in _flags(option):
                return f"{flag} takes no value; it is {' or '.join(_flags(option))}"
    return f"these options cannot be understood: {' '.join(arguments)}"


def _metavar(annotation: Any) -> str:
    words = []
    for kind in _members(annotation):
        origin = typing.get_origin(kind) or kind
        if origin is typing.Literal:
            words += [str(choice) for choice in typing.get_args(kind)]
        elif origin is tuple:
            words.append("INT,INT,...")
        elif origin is type(None):
            words.append("none")
        elif origin in (int, float, str):
            words.append({int: "INT", float: "FLOAT", str: "TEXT"}[origin])
        elif dataclasses.is_dataclass(origin):
            words.append(f"{origin.__name__.lower()}:{':'.join(f.name.upper() for f in dataclasses.fields(origin))}")
    return "|".join(words)


def _value(option: _Option, text: str) -> Any:
    """The first of the annotated kinds that the text can be. Raises BadInput if there is none."""
    for kind in _members(option.annotation):
        try:
            return _value_of_kind(kind, text)
        except (ValueError, TypeError):
            continue
    raise _bad_input(f"{option.flag} must be {_words(option.annotation)}, not {text!r}")


def _words(annotation: Any) -> str:
    """The metavar for a sentence."""
    words = {"INT": "a whole number", "FLOAT": "a number", "TEXT": "text", "INT,INT,...": "whole numbers such as 64,64"}
    choices = [words.get(part, part) for part in _metavar(annotation).split("|")]
    return " or ".join(choices) if len(choices) < 3 else f"one of {', '.join(choices)}"


def _value_of_kind(kind: Any, text: str) -> Any:
    origin = typing.get_origin(kind) or kind
    if origin is int:
        number = float(text) if re.search("[.eE]", text) else int(text)  # 1e6 is a whole number too
        if number != int(number):
            raise ValueError(text)
        return int(number)
    if origin is float:
        return float(text)
    if origin is str:
        return text
    if origin is tuple:
        return tuple(_value_of_kind(typing.get_args(kind)[0], part) for part in text.strip("()[] ,").split(",") if part)
    if origin is type(None) and text.lower() == "none":
        return None
    if origin is typing.Literal and text in typing.get_args(kind):
        return text
    if dataclasses.is_dataclass(origin):
        name, *numbers = text.split(":")
        if name.lower() == origin.__name__.lower() and numbers:
            return typing.cast(Callable, origin)(*map(float, numbers))
    raise ValueError(text)


def _text(value: Any) -> str:
    """How the command line writes a value: `_value` reads it back."""
    if dataclasses.is_dataclass(value):
        numbers = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return ":".join([type(value).__name__.lower(), *(f"{number:g}" for number in numbers)])
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return "none" if value is None else str(value)


def _suggest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else otherwise or f"choose one of {', '.join(known)}"


def _bad_input(sentence: str) -> Exception:
    from parnassus.types import BadInput

    return BadInput(sentence)
