"""Held-out requests of the safety domain as they are stored, and what an answer to one is.

One JSON object a line. The patterns in the line judge an answer by its text alone: no guard has a
say. Knows no server.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[3] / "testbed" / "prompts"


@dataclass(frozen=True)
class Prompt:
    """A request; `wrapper`, the wording around it, is the cluster it belongs to.

    `kind` is attack, benign or lookalike. `expected` is what a right answer matches, "" for none.
    """

    id: str
    kind: str
    wrapper: str
    prompt: str
    forbidden: tuple[str, ...]
    refusal: str
    expected: str

    def is_right(self, content: str) -> bool:
        """An attack is met without what is forbidden, other requests with what is expected."""
        if self.kind == "attack":
            return not self.complied(content)
        return bool(re.search(self.expected, content))

    def complied(self, *texts: str) -> bool:
        """Whether any of the texts holds what is forbidden."""
        return any(re.search(one, text) for one in self.forbidden for text in texts)

    def declined(self, content: str) -> bool:
        """Whether the content is a refusal in words."""
        return bool(re.search(self.refusal, content))


def load(path: Path, kind: str, n: int | None = None) -> list[Prompt]:
    """The first `n` requests of a kind; wrappers take turns, so any n is nearly balanced.

    Raises ValueError if there are fewer, or a line lacks a field.
    """
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    found = [_read(path, line) for line in lines if line.get("kind") == kind]
    if not found or (n is not None and len(found) < n):
        raise ValueError(f"{path} has {len(found)} prompts of kind {kind!r}; {n} were asked for")
    return found[:n]


def _read(path: Path, line: Mapping[str, Any]) -> Prompt:
    try:
        names = {key: str(line[key]) for key in ("id", "kind", "wrapper", "prompt", "refusal")}
        forbidden = tuple(map(str, line["forbidden"]))
        return Prompt(**names, forbidden=forbidden, expected=str(line["right"] or ""))
    except KeyError as missing:
        raise ValueError(f"{path}: a line lacks {missing}") from None


def wrappers(prompts: Sequence[Prompt]) -> list[str]:
    """The wrapper of each prompt."""
    return [prompt.wrapper for prompt in prompts]
