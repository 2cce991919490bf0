"""Arithmetic problems, their levels and the split that each belongs to.

A problem is a short straight-line program. Knows nothing of wording, tokens or models.
"""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Family = Literal["chain", "sum"]
Split = Literal["train", "validation", "test"]
FAMILIES: tuple[Family, ...] = ("chain", "sum")
LEVELS = (1, 2, 3, 4, 5)
# Products stay below 100 and sums below 1000, so that a small model learns every step.
FACTORS = (11, 24)
MULTIPLIERS = (2, 4)
ADDENDS = (11, 49)
LARGEST_PRODUCT = 99


@dataclass(frozen=True)
class Step:
    """`left op right`; a negative operand -k stands for the result of k steps ago."""

    left: int
    op: str
    right: int


@dataclass(frozen=True)
class Problem:
    """The numbers of one problem.

    chain: `numbers[0]`, then each operation `ops[i]` with `numbers[i + 1]`, left to right.
    sum: products `numbers[2i] * numbers[2i + 1]`, added up; `ops` is empty.
    """

    family: Family
    level: int
    numbers: tuple[int, ...]
    ops: tuple[str, ...] = ()

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The products of a sum."""
        return list(zip(self.numbers[::2], self.numbers[1::2], strict=True))

    @property
    def canonical(self) -> str:
        """One string for all wordings and orders of the same problem; what the split hashes."""
        if self.family == "sum":
            return "+".join(sorted(f"{a}*{b}" for a, b in self.pairs))
        tail = "".join(f"{op}{n}" for op, n in zip(self.ops, self.numbers[1:], strict=True))
        return f"chain:{self.numbers[0]}{tail}"

    @property
    def split(self) -> Split:
        """sha256 of the canonical form modulo 10: 0 is test, 1 is validation, the rest train."""
        digest = hashlib.sha256(self.canonical.encode()).hexdigest()
        remainder = int(digest, 16) % 10
        return "test" if remainder == 0 else "validation" if remainder == 1 else "train"

    @property
    def program(self) -> list[Step]:
        """The steps of the derivation, in the order in which a trace writes them."""
        if self.family == "chain":
            first = Step(self.numbers[0], self.ops[0], self.numbers[1])
            rest = zip(self.ops[1:], self.numbers[2:], strict=True)
            return [first, *(Step(-1, op, n) for op, n in rest)]
        steps: list[Step] = []
        for index, (a, b) in enumerate(self.pairs):
            steps.append(Step(a, "*", b))
            if index:
                steps.append(Step(-2, "+", -1))
        return steps

    @property
    def answer(self) -> int:
        """The result of the last step."""
        return derive(self)[-1][3]


Line = tuple[int, str, int, int]
Slips = Mapping[int, int]


def derive(problem: Problem, slips: Slips | None = None) -> list[Line]:
    """Runs the program: (left, op, right, result) per step.

    `slips` adds an error to the result of some steps, which later steps carry on.
    """
    results: list[int] = []
    lines: list[Line] = []
    for index, step in enumerate(problem.program):
        left = step.left if step.left >= 0 else results[step.left]
        right = step.right if step.right >= 0 else results[step.right]
        result = left * right if step.op == "*" else left + right
        result = max(1, result + (slips or {}).get(index, 0))
        results.append(result)
        lines.append((left, step.op, right, result))
    return lines


def draw_problem(rng: random.Random, family: Family, level: int) -> Problem:
    """A random problem: a chain of level + 2 operations or a sum of level + 1 products."""
    return draw_chain(rng, level) if family == "chain" else draw_sum(rng, level)


def draw_sum(rng: random.Random, level: int) -> Problem:
    """A sum of level + 1 products, each of two digits by one."""
    numbers: list[int] = []
    for _ in range(level + 1):
        factor = rng.randint(*FACTORS)
        numbers += [factor, draw_multiplier(rng, factor)]
    return Problem("sum", level, tuple(numbers))


def draw_chain(rng: random.Random, level: int) -> Problem:
    """A chain of level + 2 operations on a running value; only small values are multiplied."""
    value = rng.randint(*FACTORS)
    numbers, ops = [value], []
    for _ in range(level + 2):
        if 2 * value <= LARGEST_PRODUCT and rng.random() < 0.4:
            op, number = "*", draw_multiplier(rng, value)
            value *= number
        else:
            op, number = "+", rng.randint(*ADDENDS)
            value += number
        ops.append(op)
        numbers.append(number)
    return Problem("chain", level, tuple(numbers), tuple(ops))


def draw_multiplier(rng: random.Random, factor: int) -> int:
    """A multiplier that keeps the product within two digits."""
    low, high = MULTIPLIERS
    return rng.randint(low, min(high, LARGEST_PRODUCT // factor))


def problem_in(rng: random.Random, split: Split, family: Family, level: int) -> Problem:
    """Draws until the problem belongs to `split`."""
    while True:
        problem = draw_problem(rng, family, level)
        if problem.split == split:
            return problem
