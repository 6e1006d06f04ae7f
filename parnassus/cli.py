"""The command line. Options of `train` are generated from the algorithm's dataclass: names, defaults and help.

Bad input is one sentence on stderr and exit status 2; a run that fails is exit status 1; one that SIGINT or SIGTERM
stopped has saved and exits with 130 or 143. JAX is imported by the commands that need it, not by `--help`.
"""

import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
  solve ENVIRONMENT              values and policy of a finite world by dynamic programming
      --method value-iteration   or policy-iteration, ...; --output FILE.png draws them
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
class SolveOptions:
    """What `solve` takes."""

    method: Literal[
        "value-iteration", "policy-iteration", "generalized-policy-iteration", "soft-value-iteration", "evaluation"
    ] = "value-iteration"  # evaluation is that of the random policy
    discount: float | None = None  # gamma, of future rewards; by default the textbook's for this world, else 0.99
    order: Literal["jacobi", "gauss-seidel", "random", "prioritized"] = "jacobi"  # of the states in a sweep
    sweeps: int = 5  # of evaluation between two improvements, in generalized policy iteration
    temperature: float = 0.1  # of the entropy, in soft value iteration
    tolerance: float = 1e-5  # how far from the truth values may be
    max_iterations: int = 100_000  # sweeps (or improvements) at most
    output: str | None = None  # a PNG to draw values and policy in
    json: bool = False  # print JSON


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(arguments)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `parnassus list environments | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
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
        from parnassus.presets import suggest
        from parnassus.types import BadInput

        kind = "option" if command.startswith("-") else "command"
        raise BadInput(f"unknown {kind} {command!r}; {suggest(command, [*_COMMANDS, '--help', '--version'])}")
    _COMMANDS[command](rest)
    return 0


def _train(arguments: list[str]) -> None:
    first_option = next((i for i, token in enumerate(arguments) if token.startswith("-")), len(arguments))
    names, rest = arguments[:first_option], arguments[first_option:]
    wants_help = "--help" in rest or "-h" in rest

    from parnassus.options import choices, choose, flatten, parse, rebuild
    from parnassus.presets import ALGORITHMS, algorithm_class, preset
    from parnassus.types import BadInput

    if not names and wants_help:
        print(
            "usage: parnassus train ALGORITHM ENVIRONMENT --steps N [options]\n\n"
            f"algorithms: {', '.join(ALGORITHMS)}; environments: parnassus list environments\n"
            "the options of an algorithm, and their defaults: parnassus train ALGORITHM [ENVIRONMENT] --help"
        )
        return
    if not names or (len(names) < 2 and not wants_help):
        what = "an environment" if names else "an algorithm and an environment"
        raise BadInput(f"train needs {what}, then the options: parnassus train ppo CartPole-v1 --steps 100_000")
    env = names[1] if len(names) > 1 else ""
    algorithm, defaults = preset(names[0], env, **choices(algorithm_class(names[0]), rest))
    algorithm = choose(algorithm, rest)
    own = flatten(TrainOptions(**defaults))
    of_algorithm = flatten(algorithm)
    prog = f"parnassus train {' '.join(names)}"
    _, values = parse(prog, [*own, *of_algorithm], [*names[2:], *rest])
    algorithm = rebuild(algorithm, {option.path: values[option.name] for option in of_algorithm})
    chosen = {option.name: values[option.name] for option in own}
    if chosen["steps"] is None:
        raise BadInput(f"train needs --steps, such as: {prog} --steps 100_000")
    if (count := chosen.pop("seeds")) is not None:
        if count < 1:
            raise BadInput(f"seeds must be a whole number of at least 1, not {count}")
        chosen["seeds"] = range(chosen["seed"], chosen["seed"] + count)

    from parnassus import run

    _say_where(run.train(algorithm, env, **chosen), chosen["quiet"])


def _resume(arguments: list[str]) -> None:
    directory, values = _directory_and_options("resume", ResumeOptions(), arguments)

    from parnassus import run

    _say_where(run.resume(directory, **values), values["quiet"])


def _say_where(result: Any, quiet: bool) -> None:
    if not quiet:
        print(f"{result.steps:,} steps; evaluate with: parnassus evaluate {result.directory}")


def _evaluate(arguments: list[str]) -> None:
    directory, values = _directory_and_options("evaluate", EvaluateOptions(), arguments)

    from parnassus import configuration, run

    is_group = "seeds" in configuration.read(Path(directory))
    runs = list(run.load_seeds(directory)) if is_group else [run.load(directory)]
    results = [one.evaluate(values["episodes"], values["seed"]) for one in runs]
    if values["json"]:
        rows = [
            {
                "directory": str(one.directory),
                "steps": one.steps,
                "episodes": values["episodes"],
                "seed": values["seed"],
                "mean": result.mean,
                "interval": list(result.interval) if values["episodes"] > 1 else None,  # JSON has no infinity
                "returns": [float(x) for x in result.returns],
                "lengths": [int(x) for x in result.lengths],
            }
            for one, result in zip(runs, results, strict=True)
        ]
        print(json.dumps(rows if is_group else rows[0]))
        return
    for one, result in zip(runs, results, strict=True):
        print(f"{one.directory.name}: {result}" if is_group else result)
    if is_group:
        from parnassus.statistics import bootstrap_interval, interquartile_mean

        means = [result.mean for result in results]
        low, high = bootstrap_interval(means)
        print(f"interquartile mean {interquartile_mean(means):.2f} (95% interval {low:.2f} to {high:.2f})")


def _plot(arguments: list[str]) -> None:
    from parnassus.options import flatten, parse
    from parnassus.types import BadInput

    directories, values = parse("parnassus plot DIR", flatten(PlotOptions()), arguments, positional=len(arguments))
    if not directories:
        raise BadInput("plot needs run directories: parnassus plot runs/ppo-CartPole-v1-0 --output curve.png")

    from parnassus.plotting import plot

    print(plot(directories, values["output"]))


def _solve(arguments: list[str]) -> None:
    from parnassus.options import flatten, parse
    from parnassus.types import BadInput

    names, values = parse("parnassus solve ENVIRONMENT", flatten(SolveOptions()), arguments, positional=1)
    if not names:
        raise BadInput("solve needs an environment: parnassus solve FrozenLake-v1 --method value-iteration")
    output, as_json = values.pop("output"), values.pop("json")

    from parnassus import solving
    from parnassus.plotting import check_name

    if output is not None:
        check_name(output)
    solved = solving.solve(names[0], **values)
    print(solving.to_json(solved) if as_json else solving.to_text(solved))
    if output is not None:
        path = solving.draw(solved, output)
        if not as_json:
            print(path)


def _list(arguments: list[str]) -> None:
    from parnassus.options import parse
    from parnassus.types import BadInput

    what, _ = parse("parnassus list algorithms|environments", [], arguments, positional=1)
    if what == ["algorithms"]:
        from parnassus.presets import ALGORITHMS, algorithm_class

        width = max(map(len, ALGORITHMS))
        for name in ALGORITHMS:
            summary, _, _ = (inspect.getdoc(inspect.getmodule(algorithm_class(name))) or "").partition("\n\n")
            print(f"{name:{width}}  {' '.join(summary.split())}")
    elif what == ["environments"]:
        from parnassus import envs

        print("\n".join(name for family in envs.names().values() for name in family))
    else:
        asked = f", not {what[0]!r}" if what else ""
        raise BadInput(f"list takes algorithms or environments{asked}, as in: parnassus list algorithms")


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": _train,
    "resume": _resume,
    "evaluate": _evaluate,
    "plot": _plot,
    "solve": _solve,
    "list": _list,
}


def _directory_and_options(command: str, defaults: Any, arguments: list[str]) -> tuple[str, dict[str, Any]]:
    from parnassus.options import flatten, parse
    from parnassus.types import BadInput

    directory, values = parse(f"parnassus {command} DIR", flatten(defaults), arguments, positional=1)
    if not directory:
        raise BadInput(f"{command} needs a run directory: parnassus {command} runs/ppo-CartPole-v1-0")
    return directory[0], values
