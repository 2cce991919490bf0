"""Held-out questions as they are stored, and whether an answer is right.

One JSON object a line: id, template, level, prompt, answer. Knows no server.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[3] / "testbed" / "questions"
NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass(frozen=True)
class Question:
    """A question with its expected answer; `template` is the cluster it belongs to."""

    id: str
    template: str
    level: int
    prompt: str
    answer: str

    def is_right(self, content: str) -> bool:
        """Whether the last number in `content` is the expected one."""
        return is_right(content, self.answer)


def load(path: Path, n: int | None = None) -> list[Question]:
    """The first `n` questions; templates and levels take turns, so any n is nearly balanced.

    Raises ValueError if there are fewer.
    """
    lines = path.read_text("utf-8").splitlines()
    if n is not None and len(lines) < n:
        raise ValueError(f"{path} has {len(lines)} questions; {n} were asked for")
    return [Question(**json.loads(line)) for line in lines[:n]]


def is_right(content: str, expected: str) -> bool:
    """Whether the last number in `content` is the expected one; no number is wrong."""
    numbers = NUMBER.findall(content)
    return bool(numbers) and _value(numbers[-1]) == _value(expected)


def _value(number: str) -> Fraction:
    return Fraction(number.replace(",", ""))


def clusters(questions: Sequence[Question]) -> list[str]:
    """The template of each question."""
    return [question.template for question in questions]
