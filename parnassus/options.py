"""Dataclasses as command-line options: one for each field, with its default and the comment behind it as help."""

import dataclasses
import inspect
import io
import itertools
import re
import typing
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from parnassus.configuration import members
from parnassus.presets import ALGORITHMS, suggest
from parnassus.types import BadInput


@dataclass(frozen=True)
class Option:
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


def flatten(config: Any, path: tuple[str, ...] = ()) -> list[Option]:
    """An option for each field; a field that is itself a dataclass of options gives its own fields instead.

    Where a field may hold one of several dataclasses, an option names the kind, `--objective adaptive-kl`, and the
    options of that kind bear its name, `--adaptive-kl-target`. Otherwise the options of a part bear the field's name
    only where without it they would have that of another: `--fitting-learning-rate`.
    """
    comments = _comments(type(config))
    options: list[Option] = []
    own = {field.name for field in dataclasses.fields(config)}
    for field in dataclasses.fields(config):
        value, where = getattr(config, field.name), (*path, field.name)
        if _is_value(field.type):
            options.append(Option(field.name, where, field.type, value, comments.get(field.name, "")))
        elif kinds := _kinds(field.type):
            kind = _kind_name(type(value))
            options.append(Option(field.name, where, Literal[tuple(kinds)], kind, comments.get(field.name, "")))
            prefix = kind.replace("-", "_") + "_"
            for option in flatten(value, where):
                options.append(dataclasses.replace(option, name=prefix + option.name.removeprefix(prefix)))
        elif dataclasses.is_dataclass(value):
            taken = own | {option.name for option in options}
            for option in flatten(value, where):
                name = f"{field.name}_{option.name}" if option.name in taken else option.name
                options.append(dataclasses.replace(option, name=name))
    return options


def choices(cls: type, arguments: Sequence[str]) -> dict[str, type]:
    """The kinds of dataclass that arguments such as `--objective adaptive-kl` choose for fields: what to flatten."""
    chosen = {}
    for field in dataclasses.fields(cls):
        kinds = _kinds(field.type)
        for token, following in itertools.pairwise([*arguments, ""]):
            flag, equals, value = token.partition("=")
            if kinds and flag.replace("_", "-") == "--" + field.name.replace("_", "-"):
                chosen[field.name] = kinds.get(value if equals else following)
    return {name: kind for name, kind in chosen.items() if kind}  # `parse` tells of those that there are not


def choose(config: Any, arguments: Sequence[str], prefix: str = "") -> Any:
    """The dataclass with parts of the kinds that arguments name, `--planner mppi`; those of parts of parts, too."""
    changes = {}
    for field in dataclasses.fields(config):
        value, inner = getattr(config, field.name), prefix
        if kinds := _kinds(field.type):
            flag = "--" + prefix + field.name
            for token, following in itertools.pairwise([*arguments, ""]):
                name, equals, text = token.partition("=")
                kind = kinds.get(text if equals else following)
                if name.replace("-", "_") == flag.replace("-", "_") and kind and type(value) is not kind:
                    value = kind()
            inner = prefix + _kind_name(type(value)) + "-"
        elif _is_value(field.type) or not dataclasses.is_dataclass(value):
            continue
        value = choose(value, arguments, inner)
        if value is not getattr(config, field.name):
            changes[field.name] = value
    return dataclasses.replace(config, **changes) if changes else config


def _kinds(annotation: Any) -> dict[str, type]:
    """The dataclasses that a field may hold, if there is a choice, by their names on the command line."""
    kinds = {
        _kind_name(kind): kind
        for kind in members(annotation)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }
    return kinds if len(kinds) > 1 else {}


def _kind_name(kind: type) -> str:
    """AdaptiveKL -> adaptive-kl; an algorithm's is that by which it is trained."""
    home = kind.__module__, kind.__name__
    of_algorithms = {home: name for name, home in ALGORITHMS.items()}
    return of_algorithms.get(home) or re.sub("(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()


def _is_value(annotation: Any) -> bool:
    """Whether text can say it: numbers, words, tuples of numbers, schedules; not networks."""
    kinds = [typing.get_origin(kind) or kind for kind in members(annotation)]
    return any(kind in (int, float, bool, str, tuple, typing.Literal) for kind in kinds)


def _comments(cls: type) -> dict[str, str]:
    """What the comment behind each field says."""
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return {}
    return dict(re.findall(r"^\s+(\w+)\s*:[^\n#]*#\s*(.*)$", source, re.MULTILINE))


def rebuild(config: Any, values: dict[tuple[str, ...], Any]) -> Any:
    """The dataclass with values put in at their paths."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        inner = {path[1:]: value for path, value in values.items() if path[0] == field.name}
        if _kinds(field.type):
            inner.pop((), None)  # the config is of the kind already
        if () in inner:
            changes[field.name] = inner[()]
        elif inner:
            changes[field.name] = rebuild(getattr(config, field.name), inner)
    return dataclasses.replace(config, **changes)


def parse(
    prog: str, options: list[Option], arguments: list[str], positional: int = 0
) -> tuple[list[str], dict[str, Any]]:
    """At most `positional` arguments without a name, and the options' values.

    Raises BadInput, in one sentence; SystemExit after printing the help that `--help` asks for.
    """
    for flag, equals, _ in (token.partition("=") for token in arguments):
        if equals and any(option.is_switch and flag in _flags(option) for option in options):
            raise BadInput(f"{flag} takes no value")
    import tyro

    cli: Any = tyro.cli  # it is told a class that is made here
    fields = [(option.name, _annotate(option), dataclasses.field(default=option.default)) for option in options]
    cls = dataclasses.make_dataclass("options", fields)
    try:
        with redirect_stderr(io.StringIO()):  # in place of the parser's own words: ours are one sentence
            parsed, rest = cli(cls, prog=prog, description="", args=arguments, return_unknown_args=True)
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        raise BadInput(_why(options, arguments)) from None
    known = [flag for option in options for flag in _flags(option)]
    for token in rest:
        flag = token.partition("=")[0]
        if choice := _choice_with(flag, options):
            raise BadInput(f"{flag} needs {choice}")
        if token.startswith("-"):
            raise BadInput(f"unknown option {flag}; {suggest(flag, [*known, '--help'], f'see {prog} --help')}")
    if len(rest) > positional:
        raise BadInput(f"unexpected argument {rest[positional]!r}; options have a name, see {prog} --help")
    return rest, {option.name: getattr(parsed, option.name) for option in options}


def _choice_with(flag: str, options: list[Option]) -> str | None:
    """The choice, `--objective adaptive-kl`, that would have given the option, `--adaptive-kl-target`."""
    for option in options:
        for kind in typing.get_args(option.annotation) if typing.get_origin(option.annotation) is Literal else ():
            if kind != option.default and flag.replace("_", "-").startswith(f"--{kind}-"):
                return f"{option.flag} {kind}"
    return None


def _annotate(option: Option) -> Any:
    """The option's type for tyro, with our reading and writing of values; tyro makes a pair of flags of a bool."""
    import tyro

    about = tyro.conf.arg(help=option.help)
    if option.is_switch:
        return Annotated[bool, about]
    reading = tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=_metavar(option.annotation),
        instance_from_str=lambda texts: _value(option, texts[0]),
        is_instance=lambda instance: True,
        str_from_instance=lambda instance: [_text(instance)],
    )
    return Annotated[option.annotation, reading, about]


def _flags(option: Option) -> list[str]:
    return [option.flag, "--no-" + option.flag[2:]] if option.is_switch else [option.flag]


def _why(options: list[Option], arguments: list[str]) -> str:
    """What is wrong with arguments that the parser refused: a value is missing."""
    for token, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        for option in options:
            if token == option.flag and not option.is_switch and following.startswith("--"):
                return f"{option.flag} needs a value: {_words(option.annotation)}"
    return f"these options cannot be understood: {' '.join(arguments)}"


def _metavar(annotation: Any) -> str:
    words = []
    for kind in members(annotation):
        origin: Any = typing.get_origin(kind) or kind
        if origin is typing.Literal:
            words += [str(choice) for choice in typing.get_args(kind)]
        elif origin is tuple:
            words.append("INT,INT,...")
        elif origin is type(None):
            words.append("none")
        elif origin in (int, float, str):
            words.append({int: "INT", float: "FLOAT", str: "TEXT"}[origin])
        elif dataclasses.is_dataclass(origin) and isinstance(origin, type):
            words.append(f"{origin.__name__.lower()}:{':'.join(f.name.upper() for f in dataclasses.fields(origin))}")
    return "|".join(words)


def _value(option: Option, text: str) -> Any:
    """The first of the annotated kinds that the text can be. Raises BadInput if there is none."""
    for kind in members(option.annotation):
        try:
            return _value_of_kind(kind, text)
        except (ValueError, TypeError):
            continue
    raise BadInput(f"{option.flag} must be {_words(option.annotation)}, not {text!r}")


def _words(annotation: Any) -> str:
    """The metavar for a sentence."""
    words = {"INT": "a whole number", "FLOAT": "a number", "TEXT": "text", "INT,INT,...": "whole numbers such as 64,64"}
    choices = [words.get(part, part) for part in _metavar(annotation).split("|")]
    return " or ".join(choices) if len(choices) < 3 else f"one of {', '.join(choices)}"


def _value_of_kind(kind: Any, text: str) -> Any:
    origin: Any = typing.get_origin(kind) or kind
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
    if dataclasses.is_dataclass(origin) and isinstance(origin, type):
        name, *numbers = text.split(":")
        if name.lower() == origin.__name__.lower() and numbers:
            return origin(*map(float, numbers))
    raise ValueError(text)


def _text(value: Any) -> str:
    """How the command line writes a value: `_value` reads it back."""
    if dataclasses.is_dataclass(value):
        numbers = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return ":".join([type(value).__name__.lower(), *(f"{number:g}" for number in numbers)])
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return "none" if value is None else str(value)
