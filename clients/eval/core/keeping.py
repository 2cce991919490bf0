"""Answers of an arm kept on disk, so that a long evaluation that was cut off goes on where it was.

One JSON file per arm, named by all that its answers depend on: model, seed, setting and questions.
Knows no server; whoever changes the model's weights must name another folder.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from clients.eval.core.asking import Arm, Item, Reply


@dataclass(frozen=True)
class Asked:
    """What was asked of whom."""

    model: str
    seed: int
    arm: Arm
    questions: Sequence[Item]

    def kept(self, folder: Path | None) -> list[Reply] | None:
        """The answers, if they are there."""
        if folder is None or not self._file(folder).is_file():
            return None
        rows = json.loads(self._file(folder).read_text("utf-8"))
        return [Reply(one, **row) for one, row in zip(self.questions, rows, strict=True)]

    def keep(self, folder: Path | None, replies: Sequence[Reply]) -> None:
        """Writes them, whole or not at all."""
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        rows = [_row(reply) for reply in replies]
        part = self._file(folder).with_suffix(".part")
        part.write_text(json.dumps(rows), "utf-8")
        part.rename(self._file(folder))

    def _file(self, folder: Path) -> Path:
        ids = [question.id for question in self.questions]
        told = json.dumps([self.model, self.seed, asdict(self.arm), ids], sort_keys=True)
        return folder / f"{hashlib.sha256(told.encode()).hexdigest()[:16]}.json"


def _row(reply: Reply) -> dict[str, object]:
    fields = asdict(reply)
    del fields["question"]
    return fields
