"""`parnassus solve`: the methods, the text, the JSON, the picture, and what is refused."""

import json
import typing
from pathlib import Path

import numpy as np
import pytest

from parnassus import dynamic_programming as dp
from parnassus.cli import SolveOptions, main
from parnassus.solving import Method, draw, solve, to_json, to_text
from parnassus.types import BadInput
from tests.test_plotting import picture_size

METHODS = typing.get_args(Method)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_solves(method: typing.Any) -> None:
    solved = solve("FrozenLake-v1", method, 0.9)
    assert solved.solution.converged and solved.discount == 0.9
    best = dp.value_iteration(solved.mdp, 0.9).v
    if method == "soft-value-iteration":
        assert (solved.solution.v > best - 1e-4).all()  # entropy comes on top
    elif method == "evaluation":
        assert (solved.solution.v < best + 1e-4).all()
    else:
        np.testing.assert_allclose(solved.solution.v, best, atol=1e-4)


def test_options_are_the_functions() -> None:
    """What the command line offers is what `solve` takes."""
    hints = typing.get_type_hints(SolveOptions)
    assert typing.get_args(hints["method"]) == METHODS
    assert typing.get_args(hints["order"]) == typing.get_args(dp.Order)


def test_discounts_are_the_textbooks() -> None:
    assert solve("GridWorld5x5").discount == 0.9
    assert solve("jax:GridWorld4x4", "evaluation").discount == 1.0
    assert solve("FrozenLake-v1").discount == 0.99


def test_a_grid_is_shown_as_a_grid() -> None:
    text = to_text(solve("DynaMaze"))
    first, start, blank, *rows = text.splitlines()
    assert first == "DynaMaze, discount 0.95: value iteration, 16 sweeps, error at most 0"
    assert start == "value of the start: 0.5133" and blank == ""
    assert len(rows) == 6 and rows[0].split() == [
        *("0.5133", "→", "0.5404", "→", "0.5688", "→", "0.5987", "→↓", "0.6302", "→↓", "0.6634", "→↓", "0.6983", "↓"),
        *("#", "0"),  # a wall, and the goal, where there is nothing to do
    ]


def test_other_worlds_are_shown_as_a_table() -> None:
    lines = to_text(solve("Gambler")).splitlines()
    assert "no bound without discount" in lines[0]
    assert lines[4].split() == ["0", "0"] and lines[5].split()[:3] == ["1", "0.002064", "0"]
    assert lines[5].endswith("0 1 2 3 4 ...")  # any stake is all there is
    assert lines[-1] == "... and 61 more: --json has all of them"
    assert "stopped before" in to_text(solve("Gambler", max_iterations=2)).splitlines()[0]
    assert to_text(solve("RandomWalk", "policy-iteration")).splitlines()[-1].split() == ["4", "1", "0", "1"]


def test_json_has_everything() -> None:
    found = json.loads(to_json(solve("GridWorld5x5")))
    assert len(found["v"]) == 25 and np.shape(found["q"]) == np.shape(found["policy"]) == (25, 4)
    assert found["v"][1] == pytest.approx(24.4194, abs=1e-3) and found["bound"] < 1e-3
    assert json.loads(to_json(solve("RandomWalk")))["bound"] is None


@pytest.mark.parametrize("name", ["WindyGridWorld", "RandomWalk", "Blackjack"])
def test_pictures(name: str, tmp_path: Path) -> None:
    path = draw(solve(name), tmp_path / "deep" / "world.png")
    width, height = picture_size(path)
    assert width > height > 500


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["solve", "FrozenLake-v1", "--method", "policy-iteration", "--output", str(tmp_path / "a.png")]) == 0
    out = capsys.readouterr().out
    assert "policy iteration, " in out and out.splitlines()[-1].endswith("a.png") and (tmp_path / "a.png").exists()
    assert main(["solve", "RandomWalk", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["environment"] == "RandomWalk"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "solve needs an environment"),
        (["CartPole-v1"], "CartPole-v1 is not a finite MDP"),
        (["Nowhere"], "unknown Gymnasium environment 'Nowhere'"),
        (["FrozenLake-v1", "--method", "magic"], "--method must be one of"),
        (["FrozenLake-v1", "--discount", "2"], "discount must be in"),
        (["GridWorld5x5", "--discount", "1"], "with discount 1 every episode must end"),
        (["FrozenLake-v1", "--output", "a.pdf"], "must end in .png"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["solve", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_environments_that_are_no_tables_are_refused() -> None:
    with pytest.raises(BadInput, match="Pendulum-v1 is not a finite MDP"):
        solve("jax:Pendulum-v1")
