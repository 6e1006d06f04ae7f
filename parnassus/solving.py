"""`parnassus solve`: a finite MDP by dynamic programming, as text, as JSON and as a picture."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from parnassus import dynamic_programming as dp
from parnassus.dynamic_programming import Order, Solution
from parnassus.envs import textbook
from parnassus.envs.mdp import FiniteMDP
from parnassus.envs.textbook import DISCOUNTS, GRIDS, MAPS, WORLDS, Grid, Map
from parnassus.plotting import new_figure, save

Method = Literal[
    "value-iteration", "policy-iteration", "generalized-policy-iteration", "soft-value-iteration", "evaluation"
]
MOST_ROWS, MOST_ACTIONS = 40, 5  # in a table; JSON has all


class Solved(NamedTuple):
    """A world and what was found."""

    name: str
    mdp: FiniteMDP
    grid: Grid | None
    method: Method
    discount: float
    solution: Solution


def solve(
    env: str,
    method: Method = "value-iteration",
    discount: float | None = None,
    *,
    order: Order = "jacobi",
    sweeps: int = 5,
    temperature: float = 0.1,
    tolerance: float = 1e-5,
    max_iterations: int = 100_000,
) -> Solved:
    """A world by its name: one of `textbook.WORLDS`, or a Gymnasium environment that tells its transition table.

    "evaluation" is that of the random policy. The discount is by default the textbook's, else 0.99. Raises BadInput
    for a name without a table, and as the functions of `dynamic_programming` do.
    """
    name = env.removeprefix("jax:")
    mdp = textbook.make(name) if name in WORLDS else FiniteMDP.from_gymnasium(name)
    gamma = DISCOUNTS.get(name, 0.99) if discount is None else discount
    limits: dict[str, Any] = {"tolerance": tolerance, "max_iterations": max_iterations}
    solution = {
        "value-iteration": lambda: dp.value_iteration(mdp, gamma, order=order, **limits),
        "policy-iteration": lambda: dp.policy_iteration(mdp, gamma, **limits),
        "generalized-policy-iteration": lambda: dp.generalized_policy_iteration(mdp, gamma, sweeps, **limits),
        "soft-value-iteration": lambda: dp.soft_value_iteration(mdp, gamma, temperature, **limits),
        "evaluation": lambda: dp.evaluate(mdp, "random", gamma, method=order, **limits),
    }[method]()
    return Solved(name, mdp, GRIDS.get(name), method, gamma, solution)


def to_text(solved: Solved) -> str:
    """What was done, and the values with the best actions: a grid as a grid, other worlds as a table."""
    name, mdp, grid, method, discount, solution = solved
    unit = "improvement" if method == "policy-iteration" else "sweep"
    count = f"{solution.iterations:,} {unit}{'' if solution.iterations == 1 else 's'}"
    accuracy = f"error at most {solution.bound:.1g}" if np.isfinite(solution.bound) else "no bound without discount"
    lines = [f"{name}, discount {discount:g}: {method.replace('-', ' ')}, {count}, {accuracy}"]
    if not solution.converged:
        lines[0] += " (stopped before the tolerance was reached)"
    lines += [f"value of the start: {float(mdp.start @ solution.v):.4f}", ""]
    return "\n".join([*lines, *(_grid_lines(solved) if grid else _table_lines(solved))])


def _grid_lines(solved: Solved) -> list[str]:
    grid, values, marks = solved.grid, np.asarray(solved.solution.v, float), _marks(solved)
    assert grid is not None
    cells = []
    for s, (value, mark) in enumerate(zip(values, marks, strict=True)):
        cells.append("#" if s in grid.walls else f"{_number(value)} {mark}".rstrip())
    width = max(map(len, cells))
    rows = [cells[row * grid.columns : (row + 1) * grid.columns] for row in range(grid.rows)]
    return ["  ".join(cell.ljust(width) for cell in row).rstrip() for row in rows]


def _table_lines(solved: Solved) -> list[str]:
    solution, marks = solved.solution, _marks(solved)
    lines = ["state       value  actions"]
    for s, value in enumerate(np.asarray(solution.v, float)[:MOST_ROWS]):
        lines.append(f"{s:5}  {_number(value):>10}  {marks[s]}".rstrip())
    left = solved.mdp.num_states - MOST_ROWS
    return [*lines, f"... and {left:,} more: --json has all of them"] if left > 0 else lines


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _marks(solved: Solved) -> list[str]:
    """The best actions of each state, or the policy's own where it was evaluated or is soft; "" where all is over."""
    mdp = solved.mdp
    over = (np.asarray(mdp.next_state) == np.arange(mdp.num_states)[:, None, None]).all((1, 2))
    over &= np.asarray(mdp.terminated | (mdp.reward == 0)).all((1, 2))
    best = _best(solved)
    choices: list[Any] = [np.flatnonzero(row) if not is_over else [] for row, is_over in zip(best, over, strict=True)]
    if solved.grid:
        return ["".join(solved.grid.actions[a] for a in actions) for actions in choices]
    return [" ".join(map(str, actions[:MOST_ACTIONS])) + " ..." * (len(actions) > MOST_ACTIONS) for actions in choices]


def _best(solved: Solved) -> np.ndarray:
    """[S, A]: which actions are best, or most probable where the policy was evaluated or is soft."""
    solution = solved.solution
    if solved.method in ("evaluation", "soft-value-iteration"):
        weight = np.asarray(solution.policy)
        return weight >= weight.max(-1, keepdims=True) - 1e-6
    q = np.asarray(solution.q)
    return q >= q.max(-1, keepdims=True) - 1e-5 * (1.0 + np.abs(q).max(-1, keepdims=True))


def to_json(solved: Solved) -> str:
    """Everything; null where there is no bound."""
    solution = solved.solution
    return json.dumps(
        {
            "environment": solved.name,
            "method": solved.method,
            "discount": solved.discount,
            "iterations": solution.iterations,
            "converged": solution.converged,
            "bound": solution.bound if np.isfinite(solution.bound) else None,
            "start": float(solved.mdp.start @ solution.v),
            "v": np.asarray(solution.v, float).tolist(),
            "q": np.asarray(solution.q, float).tolist(),
            "policy": np.asarray(solution.policy, float).tolist(),
        }
    )


def draw(solved: Solved, output: str | Path) -> Path:
    """A PNG: a grid in its colours with arrows, a map of the actions and one of the values, or the values as a line.

    Raises BadInput as `plot`.
    """
    values = np.asarray(solved.solution.v, float)
    if solved.grid:
        figure = new_figure((0.75 * solved.grid.columns + 1.2, 0.75 * solved.grid.rows + 0.6))
        _draw_grid(figure, solved, solved.grid, values)
    elif solved.name in MAPS:
        world = MAPS[solved.name]
        figure = new_figure((3.6 * 2 * len(world.panels), 3.4))
        _draw_maps(figure, solved, world, values)
    else:
        figure = new_figure((6.0, 3.8))
        axes = figure.add_subplot()
        axes.plot(values, lw=1.6)
        axes.set_xlabel("state")
        axes.set_ylabel("value")
    figure.suptitle(f"{solved.name}, {solved.method.replace('-', ' ')}, discount {solved.discount:g}", fontsize=9)
    return save(figure, output)


def _draw_grid(figure: Any, solved: Solved, grid: Grid, values: np.ndarray) -> None:
    axes = figure.add_subplot()
    is_wall = np.isin(np.arange(solved.mdp.num_states), list(grid.walls)).reshape(grid.rows, grid.columns)
    shown = np.ma.masked_array(values.reshape(grid.rows, grid.columns), is_wall)
    image = axes.imshow(shown, cmap="cividis")
    axes.set_facecolor("#BBBBBB")
    low, high = shown.min(), shown.max()
    for s, mark in enumerate(_marks(solved)):
        row, column = divmod(s, grid.columns)
        if s not in grid.walls:
            ink = "black" if values[s] > (low + high) / 2 else "white"
            axes.text(column, row - 0.15, mark, ha="center", va="center", color=ink, fontsize=11)
            axes.text(column, row + 0.28, _number(values[s]), ha="center", va="center", color=ink, fontsize=6)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.colorbar(image, ax=axes, label="value", shrink=0.8)


def _draw_maps(figure: Any, solved: Solved, world: Map, values: np.ndarray) -> None:
    names = np.arange(solved.mdp.num_actions) + world.first_action
    # Of several best actions the one nearest to 0: where there are no cars, none are moved.
    actions = names[np.where(_best(solved), np.abs(names), np.inf).argmin(-1)]
    panels = figure.subplots(1, 2 * len(world.panels), squeeze=False)[0]
    for i, (title, states) in enumerate(world.panels.items()):
        left, bottom = world.first_column - 0.5, world.first_row - 0.5
        extent = (left, left + states.shape[1], bottom, bottom + states.shape[0])
        for panel, shown, what in ((panels[2 * i], actions, title), (panels[2 * i + 1], values, "value")):
            image = panel.imshow(shown[states], cmap="cividis", origin="lower", extent=extent, aspect="auto")
            panel.set_title(what, fontsize=9)
            panel.set_xlabel(world.column, fontsize=8)
            panel.set_ylabel(world.row, fontsize=8)
            panel.tick_params(labelsize=7)
            figure.colorbar(image, ax=panel, shrink=0.9).ax.tick_params(labelsize=7)
