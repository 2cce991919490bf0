"""The paths of a vote as an answer's trace tells them, and votes counted anew from fewer of them.

Reads what the server wrote into a full trace; asks nothing and decides nothing about claims.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.eval.core.asking import Arm, Reply


@dataclass(frozen=True)
class Puzzle:
    """A question whose answer must be written exactly."""

    id: str
    family: str
    level: int
    prompt: str
    answer: str

    def is_right(self, content: str) -> bool:
        """Whether `content` is the answer and nothing else."""
        return content.strip() == self.answer


def load(path: Path, n: int) -> list[Puzzle]:
    """The first `n`; families and levels take turns. Raises ValueError if there are fewer."""
    lines = path.read_text("utf-8").splitlines()
    if len(lines) < n:
        raise ValueError(f"{path} has {len(lines)} puzzles; {n} were asked for")
    return [Puzzle(**json.loads(line)) for line in lines[:n]]


@dataclass(frozen=True)
class Walk:
    """One path of a vote: its block, its seed and what it said (None: nothing)."""

    block: int
    seed: int
    said: str | None


def paths(reply: Reply) -> list[Walk]:
    """All paths of a reply, in the order in which they ran."""
    nodes = reply.decoding["trace"]["nodes"]
    return [
        Walk(node["block_length"], node["seed"], node["answer"])
        for node in nodes
        if node["kind"] == "path"
    ]


def voted(found: Sequence[Walk]) -> tuple[str | None, bool]:
    """The most frequent answer, ties to the smallest block and seed; whether there was a tie."""
    ordered = sorted(found, key=lambda path: (path.block, path.seed))
    counts = Counter(path.said for path in ordered if path.said is not None).most_common(2)
    if not counts:
        return None, False
    return counts[0][0], len(counts) > 1 and counts[0][1] == counts[1][1]


@dataclass
class Found:
    """One vote's replies with their paths; values per question."""

    arm: Arm
    replies: Sequence[Reply]
    paths: Sequence[Sequence[Walk]]
    answers: Sequence[str]

    @staticmethod
    def of(arm: Arm, replies: Sequence[Reply], puzzles: Sequence[Puzzle]) -> "Found":
        """Reads the traces."""
        return Found(arm, replies, [paths(r) for r in replies], [p.answer for p in puzzles])

    def right(self, seeds: int, blocks: Sequence[int] | None = None) -> list[float]:
        """Whether the vote of so many seeds (of these blocks) is right, per question."""
        return [float(self._vote(found, seeds, blocks)[0] == a) for found, a in self._pairs()]

    def tied(self, seeds: int) -> list[float]:
        """Whether that vote was a tie, per question."""
        return [float(self._vote(found, seeds, None)[1]) for found, _ in self._pairs()]

    def alone(self, block: int) -> list[float]:
        """How often one path of a block is right, per question."""
        return [
            average([float(path.said == a) for path in found if path.block == block])
            for found, a in self._pairs()
        ]

    def agree(self, seeds: int) -> bool:
        """Whether the server's own answers are the votes counted here."""
        return [float(reply.right) for reply in self.replies] == self.right(seeds)

    def _pairs(self) -> list[tuple[Sequence[Walk], str]]:
        return list(zip(self.paths, self.answers, strict=True))

    @staticmethod
    def _vote(
        found: Sequence[Walk], seeds: int, blocks: Sequence[int] | None
    ) -> tuple[str | None, bool]:
        return voted([p for p in found if p.seed < seeds and (not blocks or p.block in blocks)])


def average(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return sum(values) / len(values)
