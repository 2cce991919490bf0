"""Held-out lists of small tasks as they are stored, and the reward of an answer, by rule.

One JSON object a line: id, order, prompt, answers. An answer has a segment per task, and its reward
is the share of segments that are right. Knows no server.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.eval.core.asking import Reply

FOLDER = Path(__file__).resolve().parents[3] / "testbed" / "errands"
SEPARATOR = ";"


@dataclass(frozen=True)
class Errands:
    """A list of tasks; `order` names the kinds in their order."""

    id: str
    order: str
    prompt: str
    answers: tuple[str, ...]

    def reward(self, content: str) -> float:
        """The share of segments that are right, in [0, 1]; surplus ones count as wrong."""
        said = content.split(SEPARATOR)
        hits = sum(one == other for one, other in zip(said, self.answers, strict=False))
        return hits / max(len(said), len(self.answers))

    def is_right(self, content: str) -> bool:
        """Whether every segment is right."""
        return self.reward(content) == 1


def load(path: Path, n: int) -> list[Errands]:
    """The first `n`; orders take turns. Raises ValueError if there are fewer."""
    lines = path.read_text("utf-8").splitlines()
    if len(lines) < n:
        raise ValueError(f"{path} has {len(lines)} lists; {n} were asked for")
    found = [json.loads(line) for line in lines[:n]]
    return [Errands(**{**one, "answers": tuple(one["answers"])}) for one in found]


def names(asked: Sequence[Errands]) -> list[str]:
    """Each list's own name: lists are drawn independently, so each is a cluster of its own."""
    return [one.id for one in asked]


def rewards(replies: Sequence[Reply]) -> list[float]:
    """The reward of each reply to a list."""
    found = []
    for reply in replies:
        assert isinstance(reply.question, Errands)
        found.append(reply.question.reward(reply.content))
    return found
