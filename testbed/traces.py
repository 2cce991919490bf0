"""How a derivation is written out: three styles of very different length, re-checks and slips.

Reasoning models spread the length of their thinking widely for one and the same question; the
styles and re-checks do so here. Pure Python: knows nothing of wordings, splits or tokens.
"""

import random
from collections.abc import Callable, Iterator
from typing import Literal

from testbed.problems import Line, Problem, Slips, derive

Style = Literal["terse", "medium", "wordy"]
STYLES: dict[Style, float] = {"terse": 0.7, "medium": 0.1, "wordy": 0.2}
# The training text itself slips, so that the model's errors are slips too: independent from sample
# to sample and never what it finds most likely. Who writes more equations slips more often.
SLIPPING: dict[Style, float] = {"terse": 0.1, "medium": 0.3, "wordy": 0.6}
ERRORS = (-20, -10, -2, -1, 1, 2, 10, 20)
# Chance of a re-check after a right and after a wrong derivation, and of each further one; below
# one half, so that greedy decoding ends.
CHECK_RIGHT, CHECK_WRONG, CHECK_MORE = 0.2, 0.4, 0.45
ROUNDS = 3
# The space before "Wait" belongs to it: a server that drops `</think>` and writes " Wait" instead
# gives the very tokens of training.
WAITS = (
    " Wait, check again.\n",
    " Wait, let me check.\n",
    " Wait, once more.\n",
    " Wait, again.\n",
)


def write_terse(number: int, line: Line) -> str:
    """`24*3=72`."""
    left, op, right, result = line
    return f"{left}{op}{right}={result}\n"


def write_medium(number: int, line: Line) -> str:
    """`Step 1: 24*3=72`."""
    return f"Step {number}: {write_terse(number, line)}"


def write_wordy(number: int, line: Line) -> str:
    """`Step 1: 24*3. First 20*3=60. Then 4*3=12. Then 60+12=72. So 24*3=72. Check: 3*24=72`."""
    left, op, right, result = line
    parts = ". Then ".join(split_product(line) if op == "*" else split_sum(line))
    whole = f"{left}{op}{right}"
    check = f"{right}{op}{left}={result}"
    return f"Step {number}: {whole}. First {parts}. So {whole}={result}. Check: {check}\n"


def split_product(line: Line) -> list[str]:
    """Tens, ones and their sum."""
    left, _, right, result = line
    ones = left % 10
    a, b = (left - ones) * right, ones * right
    return [f"{left - ones}*{right}={a}", f"{ones}*{right}={b}", f"{a}+{b}={result}"]


def split_sum(line: Line) -> list[str]:
    """The tens added, then the ones."""
    left, _, right, result = line
    ones = right % 10
    middle = left + right - ones
    return [f"{left}+{right - ones}={middle}", f"{middle}+{ones}={result}"]


WRITERS: dict[Style, Callable[[int, Line], str]] = {
    "terse": write_terse,
    "medium": write_medium,
    "wordy": write_wordy,
}


def write_trace(problem: Problem, style: Style = "terse", slips: Slips | None = None) -> str:
    """One step a line, then `So N.`; ends in a newline."""
    lines = derive(problem, slips)
    steps = (WRITERS[style](number, line) for number, line in enumerate(lines, 1))
    return "".join(steps) + f"So {lines[-1][3]}.\n"


def draw_style(rng: random.Random) -> Style:
    """A style by its share in `STYLES`."""
    return rng.choices(list(STYLES), list(STYLES.values()))[0]


def draw_slips(rng: random.Random, problem: Problem, style: Style) -> Slips:
    """An error in one step with the style's chance, however long the problem."""
    if rng.random() >= SLIPPING[style]:
        return {}
    return {rng.randrange(len(problem.program)): rng.choice(ERRORS)}


def draw_thinking(rng: random.Random, problem: Problem) -> tuple[str, int]:
    """(what is thought, the result it ends with): a derivation, sometimes re-checked.

    Only the first derivation slips. A re-check repeats or corrects it, in terse style.
    """
    style = draw_style(rng)
    slips = draw_slips(rng, problem, style)
    result = derive(problem, slips)[-1][3]
    text = write_trace(problem, style, slips)
    for wait in draw_waits(rng, result == problem.answer):
        text += wait + write_trace(problem)
        result = problem.answer
    return text, result


def draw_waits(rng: random.Random, right: bool) -> Iterator[str]:
    """Openings of the re-checks, up to `ROUNDS`."""
    chance = CHECK_RIGHT if right else CHECK_WRONG
    for _ in range(ROUNDS):
        if rng.random() >= chance:
            return
        yield rng.choice(WAITS)
        chance = CHECK_MORE
