"""Candidates for a steering phrase, and where it acted in an answer; knows no server.

The built-in candidates are written by hand; the paper had a large model propose its own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUILT_IN = Path(__file__).with_name("phrases.json")
LONGEST = 500


def candidates(file: Path | None) -> list[str]:
    """The built-in phrases and those of the file, one a line, each once. Raises ValueError."""
    own = file.read_text("utf-8").splitlines() if file is not None else []
    found = [line.strip() for line in own if line.strip()]
    if file is not None and not found:
        raise ValueError(f"--candidates: {file} holds no phrases")
    for number, line in enumerate(own, 1):
        if len(line.strip()) > LONGEST:
            raise ValueError(f"--candidates: {file}, line {number} is longer than {LONGEST}")
    return list(dict.fromkeys([*json.loads(BUILT_IN.read_text("utf-8")), *found]))


@dataclass(frozen=True)
class Steered:
    """The first step of an answer that was redone behind a phrase: tokens before, phrase, step."""

    before: Sequence[int]
    phrase: Sequence[int]
    step: Sequence[int]


def first_steered(tokens: Sequence[int], trace: Sequence[Mapping[str, Any]]) -> Steered | None:
    """Where the first steered step lies in an answer of one attempt a step; None if nowhere.

    The trace says what was tried and forced, the answer's tokens where: steps without text are in
    the tokens only. Raises ValueError if the two do not fit together.
    """
    reached, attempt = 0, None
    for node in trace:
        if node["kind"] == "step":
            reached = _after(tokens, node["tokens"], reached)
        elif node["kind"] == "resample":
            attempt = node["tokens"]
        elif node["kind"] == "forced":
            if not attempt:
                raise ValueError("the trace has a phrase without an attempt")
            phrase = node["tokens"]
            kept = phrase if node["count"] else []
            end = _after(tokens, [*kept, *attempt], reached)
            return Steered(tokens[: end - len(kept) - len(attempt)], phrase, attempt)
    return None


def _after(tokens: Sequence[int], part: Sequence[int], start: int) -> int:
    """Where the first `part` from `start` on ends."""
    part = list(part)
    for at in range(start, len(tokens) - len(part) + 1):
        if list(tokens[at : at + len(part)]) == part:
            return at + len(part)
    raise ValueError("the answer's tokens do not hold a step of its trace")


def all_safe(trace: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every attempt was judged safe."""
    return all(node["safe"] for node in trace if node["kind"] == "resample")


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (gain, price) no other one beats: more gain at no more price, or less price."""
    return [
        not any(
            gain >= mine and price <= cost and (gain, price) != (mine, cost)
            for gain, price in points
        )
        for mine, cost in points
    ]
