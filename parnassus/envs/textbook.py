"""The known worlds of the textbook, as finite MDPs (Sutton & Barto 2018; the section stands with each).

`make(NAME)` builds one; "jax:NAME" names it wherever an environment is asked for. `Grid` says how to draw it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from parnassus.envs.mdp import FiniteMDP
from parnassus.types import BadInput

Outcome = tuple[float, int, float, bool]  # probability, next state, reward, whether the episode is over

ARROWS = {(-1, 0): "↑", (0, 1): "→", (1, 0): "↓", (0, -1): "←", (0, 0): "·"}
ARROWS |= {(-1, -1): "↖", (-1, 1): "↗", (1, 1): "↘", (1, -1): "↙"}
FOUR = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left
KINGS = (*FOUR, (-1, -1), (-1, 1), (1, 1), (1, -1))


class Grid(NamedTuple):
    """How the states of a grid world lie: state r * columns + c in row r, column c."""

    rows: int
    columns: int
    actions: tuple[str, ...]  # an arrow for each
    walls: frozenset[int] = frozenset()  # cells that are no states to be in


class Map(NamedTuple):
    """How the states of a world with two numbers lie, in one panel or more."""

    panels: dict[str, np.ndarray]  # title -> the states' numbers, [rows, columns], the first row at the bottom
    row: str  # what the rows are, and the number of the first
    first_row: int
    column: str
    first_column: int
    first_action: int = 0  # what action 0 is called


def _arrows(moves: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
    return tuple(ARROWS[move] for move in moves)


def _moved(cell: tuple[int, int], move: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The cell after a move, which the edges stop."""
    return tuple(int(np.clip(x + d, 0, n - 1)) for x, d, n in zip(cell, move, shape, strict=True))  # type: ignore[return-value]


def _uniform(size: int, states: Any) -> np.ndarray:
    start = np.zeros(size)
    start[states] = 1.0
    return start / start.sum()


def grid_world_4x4() -> FiniteMDP:
    """Example 4.1: two corners end the episode, every step costs 1. gamma = 1."""
    shape, ends = (4, 4), (0, 15)

    def outcomes(s: int, a: int) -> list[Outcome]:
        if s in ends:
            return [(1.0, s, 0.0, True)]
        row, column = _moved(divmod(s, 4), FOUR[a], shape)
        there = 4 * row + column
        return [(1.0, there, -1.0, there in ends)]

    return FiniteMDP.from_function(16, 4, outcomes, _uniform(16, range(1, 15)))


def grid_world_5x5() -> FiniteMDP:
    """Examples 3.5 and 3.8: every action in A leads to A' and pays 10, in B to B' and 5; bumping costs 1; no end.
    gamma = 0.9."""

    def outcomes(s: int, a: int) -> list[Outcome]:
        if s in (1, 3):
            return [(1.0, 21, 10.0, False) if s == 1 else (1.0, 13, 5.0, False)]
        row, column = _moved(divmod(s, 5), FOUR[a], (5, 5))
        there = 5 * row + column
        return [(1.0, there, -1.0 if there == s else 0.0, False)]

    return FiniteMDP.from_function(25, 4, outcomes, _uniform(25, range(25)))


def windy_grid_world(kings: bool = False) -> FiniteMDP:
    """Example 6.5, and exercise 6.9 with king's moves: wind blows upwards, in some columns twice. gamma = 1."""
    wind, goal = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0), 3 * 10 + 7
    moves = KINGS if kings else FOUR

    def outcomes(s: int, a: int) -> list[Outcome]:
        if s == goal:
            return [(1.0, s, 0.0, True)]
        row, column = divmod(s, 10)
        up, right = moves[a]
        row, column = _moved((row, column), (up - wind[column], right), (7, 10))
        there = 10 * row + column
        return [(1.0, there, -1.0, there == goal)]

    return FiniteMDP.from_function(70, len(moves), outcomes, _uniform(70, [30]))


def dyna_maze() -> FiniteMDP:
    """Example 8.1: 1 for reaching the goal in the upper right corner, walls in between. gamma = 0.95."""
    goal = 8

    def outcomes(s: int, a: int) -> list[Outcome]:
        if s == goal or s in MAZE_WALLS:
            return [(1.0, s, 0.0, True)]
        row, column = _moved(divmod(s, 9), FOUR[a], (6, 9))
        there = 9 * row + column
        there = s if there in MAZE_WALLS else there
        return [(1.0, there, float(there == goal), there == goal)]

    return FiniteMDP.from_function(54, 4, outcomes, _uniform(54, [18]))


MAZE_WALLS = frozenset(9 * row + column for row, column in ((1, 2), (2, 2), (3, 2), (4, 5), (0, 7), (1, 7), (2, 7)))


def random_walk(num_states: int = 5, left: float = 0.0, right: float = 1.0) -> FiniteMDP:
    """Examples 6.2 and 7.1: left or right, from the middle, until it leaves at an end, which pays. gamma = 1.

    The random policy makes it the walk. Raises BadInput for less than one state.
    """
    if num_states < 1:
        raise BadInput(f"num_states must be at least 1, not {num_states}")

    def outcomes(s: int, a: int) -> list[Outcome]:
        there = s + 2 * a - 1
        if 0 <= there < num_states:
            return [(1.0, there, 0.0, False)]
        return [(1.0, s, left if there < 0 else right, True)]

    return FiniteMDP.from_function(num_states, 2, outcomes, _uniform(num_states, [num_states // 2]))


def gambler(heads: float = 0.4, goal: int = 100) -> FiniteMDP:
    """Example 4.3: the capital is the state, the stake the action (from 1; more than helps counts as what helps).
    gamma = 1. Raises BadInput for a probability outside [0, 1] or a goal below 2."""
    if not 0 <= heads <= 1:
        raise BadInput(f"heads must be a probability, not {heads}")
    if goal < 2:
        raise BadInput(f"goal must be at least 2, not {goal}")

    def outcomes(s: int, a: int) -> list[Outcome]:
        if s in (0, goal):
            return [(1.0, s, 0.0, True)]
        stake = min(a + 1, s, goal - s)
        won, lost = s + stake, s - stake
        return [(heads, won, float(won == goal), won == goal), (1 - heads, lost, 0.0, lost == 0)]

    return FiniteMDP.from_function(goal + 1, goal // 2, outcomes, _uniform(goal + 1, range(1, goal)))


def car_rental() -> FiniteMDP:
    """Example 4.2, Jack's: cars at two places (state 21 n_1 + n_2), and how many to move from the first to the second
    overnight (action a: a - 5; more than there are counts as all). gamma = 0.9.

    Poisson requests (3 and 4) and returns (3 and 2), 10 for a car rented, -2 for a car moved, at most 20 at a place.
    Rewards are their means given the next state.
    """
    most, capacity = 5, 20

    def poisson(mean: float, size: int) -> np.ndarray:
        p = np.exp(-mean) * np.cumprod(np.append(1.0, mean / np.arange(1, size)))
        return p / p.sum()

    def place(requests: float, returns: float) -> tuple[np.ndarray, np.ndarray]:
        """P(n' | n in the morning), and E[rented; n'], which is that times the mean given n'. [21, 21]"""
        asked, brought = poisson(requests, 60), poisson(returns, 60)
        probability, rented = np.zeros((2, capacity + 1, capacity + 1))
        for n in range(capacity + 1):
            for want, p in enumerate(asked):
                out = min(n, want)
                for back, q in enumerate(brought):
                    there = min(n - out + back, capacity)
                    probability[n, there] += p * q
                    rented[n, there] += p * q * out
        return probability, rented

    (first, rented_first), (second, rented_second) = place(3, 3), place(4, 2)
    size = capacity + 1
    probability, reward = np.zeros((2, size * size, 2 * most + 1, size * size))
    for s in range(size * size):
        for a in range(2 * most + 1):
            cars = divmod(s, size)
            moved = int(np.clip(a - most, -cars[1], cars[0]))
            i, j = min(cars[0] - moved, capacity), min(cars[1] + moved, capacity)
            p = np.outer(first[i], second[j])
            rented = np.outer(rented_first[i], second[j]) + np.outer(first[i], rented_second[j])
            probability[s, a] = p.ravel()
            reward[s, a] = (10.0 * rented / p).ravel() - 2.0 * abs(moved)
    there = np.broadcast_to(np.arange(size * size), probability.shape)
    never = np.zeros(probability.shape, bool)
    return FiniteMDP.create(there, probability, reward, never, _uniform(size * size, [10 * size + 10]))


def short_corridor() -> FiniteMDP:
    """Example 13.1: three states, and in the second left is right; every step costs 1. gamma = 1.

    The book's point is that all three look alike: of interest are policies with the same probabilities everywhere.
    """

    def outcomes(s: int, a: int) -> list[Outcome]:
        right = bool(a) != (s == 1)
        there = s + 1 if right else max(s - 1, 0)
        return [(1.0, min(there, 2), -1.0, there == 3)]

    return FiniteMDP.from_function(3, 2, outcomes, _uniform(3, [0]))


# Blackjack: an ace is a 1 that may count 11, tens and pictures are 10; cards are drawn with replacement.
_CARDS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
_CARD_ODDS = np.append(np.full(9, 1 / 13), 4 / 13)


def blackjack_state(total: int, dealer: int, usable_ace: bool, natural: bool = False) -> int:
    """The number of a state of `blackjack`: the player's sum (4 to 21), the dealer's card (1 to 10), a usable ace;
    `natural` for 21 by the first two cards."""
    return 360 + dealer - 1 if natural else ((total - 4) * 10 + dealer - 1) * 2 + int(usable_ace)


def blackjack(natural: bool = False, sab: bool = True) -> FiniteMDP:
    """Example 5.1 by the rules of Gymnasium's Blackjack-v1, exactly: stick (0) or hit (1); see `blackjack_state`.

    sab: the book's rules, by which a natural wins against everything but a natural; else, with `natural`, a win by a
    natural pays 1.5. gamma = 1.
    """
    final = {dealer: _dealer_totals(dealer) for dealer in range(1, 11)}  # of 17 to 21, bust (0) and natural (22)

    def stick(total: int, dealer: int, is_natural: bool) -> list[Outcome]:
        odds = {-1.0: 0.0, 0.0: 0.0, 1.0: 0.0, 1.5: 0.0}
        for theirs, p in final[dealer].items():
            score = min(theirs, 21)
            reward = float(total > score) - float(total < score)
            if sab and is_natural and theirs != 22:
                reward = 1.0
            elif not sab and natural and is_natural and reward == 1.0:
                reward = 1.5
            odds[reward] += p
        return [(p, 0, reward, True) for reward, p in odds.items() if p > 0]

    def hit(total: int, dealer: int, ace: bool) -> list[Outcome]:
        found = []
        for card, p in zip(_CARDS, _CARD_ODDS, strict=True):
            after, usable = _with_card(total, ace, int(card))
            if after > 21:
                found.append((float(p), 0, -1.0, True))
            else:
                found.append((float(p), blackjack_state(after, dealer, usable), 0.0, False))
        return found

    def outcomes(s: int, a: int) -> list[Outcome]:
        if s >= 360:
            return hit(21, s - 359, True) if a else stick(21, s - 359, True)
        rest, ace = divmod(s, 2)
        total, dealer = rest // 10 + 4, rest % 10 + 1
        if ace and total < 12:  # an ace that can count 11 makes at least 12
            return [(1.0, s, 0.0, True)]
        return hit(total, dealer, bool(ace)) if a else stick(total, dealer, False)

    start = np.zeros(370)
    for one, p in zip(_CARDS, _CARD_ODDS, strict=True):
        for two, q in zip(_CARDS, _CARD_ODDS, strict=True):
            for dealer, r in zip(_CARDS, _CARD_ODDS, strict=True):
                total, ace = _with_card(*_with_card(0, False, int(one)), int(two))
                start[blackjack_state(total, int(dealer), ace, total == 21)] += p * q * r
    return FiniteMDP.from_function(370, 2, outcomes, start)


def _with_card(total: int, ace: bool, card: int) -> tuple[int, bool]:
    """The sum and whether it has a usable ace, after one more card."""
    total, ace = (total + 11, True) if card == 1 and total + 11 <= 21 else (total + card, ace)
    return (total - 10, False) if total > 21 and ace else (total, ace)


def _dealer_totals(card: int) -> dict[int, float]:
    """What a dealer who shows this card ends with, who draws below 17: odds of 17 to 21, 0 (bust), 22 (a natural)."""
    odds: dict[int, float] = {}

    def play(total: int, ace: bool, cards: int, p: float) -> None:
        if total >= 17:
            end = 0 if total > 21 else 22 if total == 21 and cards == 2 else total
            odds[end] = odds.get(end, 0.0) + p
            return
        for drawn, q in zip(_CARDS, _CARD_ODDS, strict=True):
            play(*_with_card(total, ace, int(drawn)), cards + 1, p * q)

    play(*_with_card(0, False, card), 1, 1.0)
    return odds


WORLDS: dict[str, Callable[..., FiniteMDP]] = {
    "GridWorld4x4": grid_world_4x4,
    "GridWorld5x5": grid_world_5x5,
    "WindyGridWorld": windy_grid_world,
    "DynaMaze": dyna_maze,
    "RandomWalk": random_walk,
    "Gambler": gambler,
    "CarRental": car_rental,
    "ShortCorridor": short_corridor,
    "Blackjack": blackjack,
}


def _hands(usable_ace: bool) -> np.ndarray:
    return np.array([[blackjack_state(total, card, usable_ace) for card in range(1, 11)] for total in range(12, 22)])


MAPS: dict[str, Map] = {
    "CarRental": Map(
        {"cars to move": np.arange(441).reshape(21, 21)}, "cars at the first place", 0, "cars at the second", 0, -5
    ),
    "Blackjack": Map(
        {"usable ace: 1 is hit": _hands(True), "no usable ace: 1 is hit": _hands(False)},
        "player's sum",
        12,
        "dealer's card",
        1,
    ),
}

DISCOUNTS = {**dict.fromkeys(WORLDS, 1.0), "GridWorld5x5": 0.9, "CarRental": 0.9, "DynaMaze": 0.95}  # the book's

GRIDS: dict[str, Grid] = {
    "GridWorld4x4": Grid(4, 4, _arrows(FOUR)),
    "GridWorld5x5": Grid(5, 5, _arrows(FOUR)),
    "WindyGridWorld": Grid(7, 10, _arrows(KINGS)),
    "DynaMaze": Grid(6, 9, _arrows(FOUR), MAZE_WALLS),
    "CliffWalking-v1": Grid(4, 12, _arrows(FOUR)),
    "CliffWalkingSlippery-v1": Grid(4, 12, _arrows(FOUR)),
    "FrozenLake-v1": Grid(4, 4, ("←", "↓", "→", "↑")),
    "FrozenLake8x8-v1": Grid(8, 8, ("←", "↓", "→", "↑")),
}


def make(name: str, **options: Any) -> FiniteMDP:
    """The world of that name. Raises BadInput for an option that it does not have."""
    try:
        return WORLDS[name](**options)
    except TypeError as cause:
        raise BadInput(f"jax:{name} does not know an option of {options}") from cause
