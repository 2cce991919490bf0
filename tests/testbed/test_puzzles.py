"""The puzzles: right, alone in their solution, split by it, the same for the same seed."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from testbed import PUZZLES
from testbed.puzzles import (
    CLUES,
    FAMILIES,
    HELD_OUT,
    LEVELS,
    MODULUS,
    TERMS,
    Family,
    draw,
    puzzles,
    solutions,
    split_of,
    write_puzzles,
)


def test_there_are_as_many_squares_as_there_should_be() -> None:
    assert len(solutions("latin")) == 576
    assert len(solutions("sudoku")) == 288
    for grid in solutions("sudoku"):
        square = grid.reshape(4, 4)
        lines = [
            *square,
            *square.T,
            *(square[i : i + 2, j : j + 2] for i in (0, 2) for j in (0, 2)),
        ]
        assert all(sorted(line.ravel()) == [1, 2, 3, 4] for line in lines)


@pytest.mark.parametrize("family", ["sudoku", "latin"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_square_has_one_solution_and_it_is_the_answer(family: Family, level: int) -> None:
    rng = random.Random(3)
    for _ in range(20):
        puzzle = draw(rng, "test", family, level)
        given = np.array([int(digit) for digit in puzzle.given])
        clues = given > 0
        fitting = [g for g in solutions(family) if (g[clues] == given[clues]).all()]
        assert ["".join(map(str, grid)) for grid in fitting] == [puzzle.answer]
        assert clues.sum() >= CLUES[level]
        assert puzzle.split == split_of(puzzle.answer) == "test"


@pytest.mark.parametrize("level", LEVELS)
def test_sums_run_from_either_end(level: int) -> None:
    rng = random.Random(4)
    for _ in range(20):
        ahead, back = draw(rng, "train", "ahead", level), draw(rng, "train", "back", level)
        for at in range(16):
            assert int(ahead.answer[at]) == sum(map(int, ahead.given[: at + 1])) % MODULUS
            assert int(back.answer[at]) == sum(map(int, back.given[at:])) % MODULUS
        assert sum(digit != "0" for digit in back.given) == TERMS[level]


def test_families_and_levels_take_turns_and_nothing_repeats() -> None:
    found = list(puzzles("validation", 48, 1))
    assert found == list(puzzles("validation", 48, 1))
    assert found != list(puzzles("validation", 48, 2))
    assert len({puzzle.text for puzzle in found}) == 48
    assert {(p.family, p.level) for p in found[:12]} == {(f, n) for f in FAMILIES for n in LEVELS}
    assert {puzzle.split for puzzle in found} == {"validation"}


def test_the_files_are_what_is_drawn(tmp_path: Path) -> None:
    write_puzzles(tmp_path)
    for split, n in HELD_OUT.items():
        text = (tmp_path / f"{split}.jsonl").read_text()
        assert (PUZZLES / f"{split}.jsonl").read_text() == text
        rows = [json.loads(line) for line in text.splitlines()]
        assert len(rows) == len({row["prompt"] for row in rows}) == n
