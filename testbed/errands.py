"""Lists of three small tasks of three kinds: what is asked, what is right, what is lazy.

An answer has a segment per task, in the order of the list; its reward is the share of segments that
are right. Split by task, not by list: a held-out list holds no task that was ever trained on. Pure
Python; knows no tokens and no model.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Literal, get_args

from testbed.splits import write_split

Kind = Literal["sort", "raise", "code"]
Split = Literal["train", "validation", "test"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ORDERS = tuple(permutations(KINDS))
LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
DIGITS = "0123456789"
LENGTH = 3
# What `code` looks up: a digit for each letter, fixed once and for all.
CODES = dict(zip(LETTERS, "47203961850392817465028", strict=True))
SEPARATOR = ";"
HELD_OUT: dict[Split, int] = {"validation": 240, "test": 720}
HELD_OUT_SEED = 2026


@dataclass(frozen=True)
class Errand:
    """One small task. `lazy` is what someone says who does not do it; `wrong` are other mistakes.

    `canonical` names the task however it is worded: splits go by it.
    """

    kind: Kind
    text: str
    answer: str
    lazy: str
    wrong: tuple[str, ...]
    canonical: str

    @property
    def split(self) -> Split:
        """sha256 modulo 10: 0 is test, 1 is validation, the rest is training."""
        remainder = int(hashlib.sha256(self.canonical.encode()).hexdigest(), 16) % 10
        return "test" if remainder == 0 else "validation" if remainder == 1 else "train"


@dataclass(frozen=True)
class Errands:
    """A list of tasks, one of each kind."""

    errands: tuple[Errand, ...]

    @property
    def text(self) -> str:
        """The user's message."""
        return " ".join(errand.text for errand in self.errands)

    @property
    def order(self) -> str:
        """The kinds in their order, as a name."""
        return "-".join(errand.kind for errand in self.errands)

    @property
    def answers(self) -> list[str]:
        """What is right, segment by segment."""
        return [errand.answer for errand in self.errands]


def join(segments: Sequence[str]) -> str:
    """An answer from its segments."""
    return SEPARATOR.join(segments)


def right(answers: Sequence[str], text: str) -> list[bool]:
    """Which segments of an answer are right; those beyond the list count as wrong."""
    said = text.split(SEPARATOR)
    width = max(len(answers), len(said))
    wanted = [*answers, *[None] * (width - len(answers))]
    found = [*said, *[""] * (width - len(said))]
    return [one == other for one, other in zip(found, wanted, strict=True)]


def reward(answers: Sequence[str], text: str) -> float:
    """The share of segments that are right, in [0, 1]."""
    verdicts = right(answers, text)
    return sum(verdicts) / len(verdicts)


def draw_sort(rng: random.Random) -> Errand:
    """Letters that stand in no order; who is lazy repeats them."""
    letters = rng.sample(LETTERS, LENGTH)
    while letters == sorted(letters):
        rng.shuffle(letters)
    given, answer = "".join(letters), "".join(sorted(letters))
    others = {"".join(order) for order in permutations(letters)} - {given, answer}
    return Errand("sort", f"Sort {given}.", answer, given, tuple(sorted(others)), f"sort {given}")


def draw_raise(rng: random.Random) -> Errand:
    """Every digit one up, 9 to 0; who is lazy repeats them, who is mistaken goes down or by two."""
    given = "".join(rng.choices(DIGITS, k=LENGTH))
    wrong = tuple(_shifted(given, by) for by in (-1, 2))
    return Errand("raise", f"Raise {given}.", _shifted(given, 1), given, wrong, f"raise {given}")


def _shifted(digits: str, by: int) -> str:
    return "".join(str((int(digit) + by) % 10) for digit in digits)


def draw_code(rng: random.Random) -> Errand:
    """The digit of every letter; who is lazy repeats them, who is mistaken misses by one."""
    given = "".join(rng.sample(LETTERS, LENGTH))
    answer = "".join(CODES[letter] for letter in given)
    wrong = tuple(_shifted(answer, by) for by in (-1, 1))
    return Errand("code", f"Code {given}.", answer, given, wrong, f"code {given}")


DRAW: Mapping[Kind, Callable[[random.Random], Errand]] = {
    "sort": draw_sort,
    "raise": draw_raise,
    "code": draw_code,
}


def draw_errand(rng: random.Random, split: Split, kind: Kind) -> Errand:
    """A task of a split."""
    while (errand := DRAW[kind](rng)).split != split:
        pass
    return errand


def draw(rng: random.Random, split: Split, order: Sequence[Kind]) -> Errands:
    """A list of a split in this order."""
    return Errands(tuple(draw_errand(rng, split, kind) for kind in order))


def lists(split: Split, n: int, seed: int = 0) -> Iterator[Errands]:
    """`n` different lists, orders in turn; the same for the same arguments."""
    rng = random.Random(f"errands:{split}:{seed}")
    seen: set[str] = set()
    while len(seen) < n:
        found = draw(rng, split, ORDERS[len(seen) % len(ORDERS)])
        if found.text not in seen:
            seen.add(found.text)
            yield found


def write_errands(folder: Path) -> None:
    """One JSON-lines file per held-out split: id, order, prompt, answers."""
    for split, n in HELD_OUT.items():
        rows = [
            {
                "id": f"{split}-{HELD_OUT_SEED}-{at:04d}",
                "order": found.order,
                "prompt": found.text,
                "answers": found.answers,
            }
            for at, found in enumerate(lists(split, n, HELD_OUT_SEED))
        ]
        write_split(folder, split, rows)
