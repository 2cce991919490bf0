"""What is asked: prompts from files of several known forms, or made up to a length.

A prompt with an expected answer can be judged. Making up lengths asks the server's tokenizer;
beyond that it knows no server.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from clients.bench.reading import json_object
from clients.eval.core.questions import FOLDER, is_right

DEFAULT = FOLDER / "test.jsonl"
WORDS = [
    "river", "stone", "market", "letter", "window", "garden", "engine", "silver", "morning",
    "paper", "answer", "colour", "island", "number", "bottle", "summer", "people", "winter",
    "reason", "travel", "kitchen", "mirror", "forest", "village", "bridge", "carpet",
]  # fmt: skip


@dataclass(frozen=True)
class Prompt:
    """A user's message; `answer` None cannot be judged; `group` is what it resembles.

    `max_tokens` is its own cap where a recorded request had one.
    """

    id: str
    text: str
    answer: str | None = None
    group: str = ""
    max_tokens: int | None = None

    def is_right(self, content: str) -> bool | None:
        """Whether the last number of an answer is the expected one; None if none is known."""
        return None if self.answer is None else is_right(content, self.answer)


def load(path: Path, n: int, seed: int | None = None) -> list[Prompt]:
    """`n` prompts of a file, from its beginning again if it has fewer.

    By `seed` they are drawn from all of it, since files are often sorted: what is asked first would
    be unlike the rest. None takes them in the file's order.

    JSON Lines with `prompt`, `question` or `turns` (the first one), and perhaps `answer` (a number,
    or a text with one behind `####`) and `template` or `category`; any other file has one prompt a
    line. Raises ValueError, OSError.
    """
    # Not splitlines: JSON's texts may hold ends of lines of other kinds.
    written = enumerate(path.read_text("utf-8").split("\n"), 1)
    lines = [(place, line.strip()) for place, line in written if line.strip()]
    if not lines:
        raise ValueError(f"{path} holds no prompts")
    numbered = list(enumerate(lines))
    if seed is not None:
        random.Random(seed).shuffle(numbered)
    if path.suffix == ".jsonl":
        found = [_read(f"{path}, line {place}", i, line) for i, (place, line) in numbered[:n]]
    else:
        found = [Prompt(str(i), line) for i, (_, line) in numbered[:n]]
    return [found[i % len(found)] for i in range(n)]


def _read(where: str, number: int, written: str) -> Prompt:
    line = json_object(written, where)
    turns = line.get("turns")
    first = turns[0] if isinstance(turns, list) and turns else None
    text = line.get("prompt") or line.get("question") or first
    if not isinstance(text, str):
        raise ValueError(f"{where}: no prompt, question or turns")
    names = (line.get(key) for key in ("id", "uid", "question_id"))
    known = next((str(name) for name in names if name is not None), str(number))
    group = str(line.get("template") or line.get("category") or known)
    return Prompt(known, text, _answer(line.get("answer")), group)


def _answer(told: Any) -> str | None:
    """The number that is expected, if it is one."""
    text = str(told).rpartition("####")[2].strip() if told is not None else ""
    bare = text.replace(",", "").lstrip("-").replace(".", "", 1)
    return text if bare.isdigit() else None


def lengths(text: str, n: int) -> list[tuple[int, int]]:
    """`INPUT:OUTPUT` tokens, n times. Raises ValueError."""
    form = re.fullmatch("([1-9][0-9]*):([1-9][0-9]*)", text)
    if form is None:
        raise ValueError(f"--synthetic {text}: must be INPUT:OUTPUT, in tokens")
    return [(int(form[1]), int(form[2]))] * n


class Maker:
    """Makes messages of a wanted length in tokens of a served model, template included."""

    def __init__(self, url: str, model: str, key: str, seed: int) -> None:
        self._http = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=60
        )
        self._model, self._random = model, random.Random(seed)
        self._frame = self._count([{"role": "user", "content": ""}])

    def made(self, wanted: Sequence[tuple[int, int]]) -> list[Prompt]:
        """One prompt for each (tokens of prompt, of answer); the template's are the least."""
        return [self._one(i, context, out) for i, (context, out) in enumerate(wanted)]

    def _one(self, number: int, context: int, out: int) -> Prompt:
        size = max(1, context - self._frame)
        text = " ".join(self._random.choices(WORDS, k=size))
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        tokens = self._post("/tokenize", body)["tokens"][:size]
        cut = self._post("/detokenize", {"model": self._model, "tokens": tokens})["prompt"]
        return Prompt(f"made-{number}", cut, max_tokens=out)

    def _count(self, messages: list[dict[str, str]]) -> int:
        count: int = self._post("/tokenize", {"model": self._model, "messages": messages})["count"]
        return count

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._http.post(path, json=body).raise_for_status().json()
        return answer

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()
