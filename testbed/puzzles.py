"""Puzzles whose answer can be written in any order, some of them only well in one.

Four families with sixteen digits to answer each. Squares of four (with boxes: sudoku; without:
latin) have no natural order: a cell is easy once its neighbours are known. Running sums have one:
from the left (`ahead`) or from the right (`back`). Split by solution, so that no grid of a held-out
question was ever seen in training. Pure Python and numpy; knows no tokens and no model.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from testbed.splits import write_split

Family = Literal["sudoku", "latin", "ahead", "back"]
Split = Literal["train", "validation", "test"]
FAMILIES: tuple[Family, ...] = get_args(Family)
LEVELS = (1, 2, 3)
CELLS = 16
# Clues that are left at least, by level; a puzzle has more where its solution would not be alone.
CLUES = {1: 9, 2: 7, 3: 4}
# Digits added up in a running sum that are not zero, by level.
TERMS = {1: 6, 2: 10, 3: 16}
# Sums are modulo this, so that all families write the same few digits.
MODULUS = 5
HELD_OUT: dict[Split, int] = {"validation": 240, "test": 720}
HELD_OUT_SEED = 2025
BLANK = "0"


@dataclass(frozen=True)
class Puzzle:
    """One question: `given` and `answer` are sixteen digits; `solution` is what splits go by."""

    family: Family
    level: int
    given: str
    answer: str

    @property
    def text(self) -> str:
        """The user's message."""
        return f"{self.family} {self.given}"

    @property
    def split(self) -> Split:
        """Its solution's; a running sum's by what is added up."""
        return split_of(self.answer if self.family in ("sudoku", "latin") else self.given)


def split_of(solution: str) -> Split:
    """sha256 modulo 10: 0 to 2 is test, 3 validation, the rest training."""
    remainder = int(hashlib.sha256(solution.encode()).hexdigest(), 16) % 10
    return "test" if remainder < 3 else "validation" if remainder == 3 else "train"


@cache
def squares() -> NDArray[np.int64]:
    """All 576 latin squares of the digits 1 to 4, one a row."""
    rows = list(permutations((1, 2, 3, 4)))
    found = [
        sum(square, ())
        for square in product(rows, repeat=4)
        if all(len(set(column)) == 4 for column in zip(*square, strict=True))
    ]
    return np.array(found)


@cache
def solutions(family: Family) -> NDArray[np.int64]:
    """The squares that a family's rules allow: all, or the 288 whose boxes hold each digit once."""
    every = squares()
    if family == "latin":
        return every
    boxes = every.reshape(-1, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 4)
    allowed = (np.sort(boxes, -1) == np.arange(1, 5)).all((1, 2))
    return np.asarray(every[allowed], np.int64)


@cache
def _of_split(family: Family, split: Split) -> NDArray[np.int64]:
    rows = [row for row in solutions(family) if split_of(_digits(row)) == split]
    return np.array(rows)


def _digits(row: NDArray[np.int64]) -> str:
    return "".join(map(str, row))


def draw(rng: random.Random, split: Split, family: Family, level: int) -> Puzzle:
    """A puzzle of a split."""
    if family in ("sudoku", "latin"):
        grid = rng.choice(_of_split(family, split))
        return _square(rng, family, level, grid)
    while (puzzle := _sum(rng, family, level)).split != split:
        pass
    return puzzle


def _square(rng: random.Random, family: Family, level: int, grid: NDArray[np.int64]) -> Puzzle:
    """Takes clues away in random order while the solution stays the only one."""
    kept = np.ones(CELLS, bool)
    for cell in rng.sample(range(CELLS), CELLS):
        if kept.sum() <= CLUES[level]:
            break
        kept[cell] = False
        others = solutions(family)
        kept[cell] = (others[:, kept] == grid[kept]).all(1).sum() > 1
    return Puzzle(family, level, _digits(np.where(kept, grid, 0)), _digits(grid))


def _sum(rng: random.Random, family: Family, level: int) -> Puzzle:
    terms = np.zeros(CELLS, np.int64)
    for place in rng.sample(range(CELLS), TERMS[level]):
        terms[place] = rng.randint(1, MODULUS - 1)
    ordered = terms if family == "ahead" else terms[::-1]
    sums = ordered.cumsum() % MODULUS
    answer = sums if family == "ahead" else sums[::-1]
    return Puzzle(family, level, _digits(terms), _digits(answer))


def puzzles(split: Split, n: int, seed: int = 0) -> Iterator[Puzzle]:
    """`n` different puzzles, families and levels in turn; the same for the same arguments."""
    rng = random.Random(f"puzzles:{split}:{seed}")
    seen: set[str] = set()
    while len(seen) < n:
        family = FAMILIES[len(seen) % len(FAMILIES)]
        level = LEVELS[len(seen) // len(FAMILIES) % len(LEVELS)]
        puzzle = draw(rng, split, family, level)
        if puzzle.text not in seen:
            seen.add(puzzle.text)
            yield puzzle


def write_puzzles(folder: Path) -> None:
    """One JSON-lines file per held-out split: id, family, level, prompt, answer."""
    for split, n in HELD_OUT.items():
        rows = [
            {
                "id": f"{split}-{HELD_OUT_SEED}-{at:04d}",
                "family": puzzle.family,
                "level": puzzle.level,
                "prompt": puzzle.text,
                "answer": puzzle.answer,
            }
            for at, puzzle in enumerate(puzzles(split, n, HELD_OUT_SEED))
        ]
        write_split(folder, split, rows)
