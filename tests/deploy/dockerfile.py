"""Reads a Dockerfile into stages of instructions, as far as the tests look at it."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Stage:
    """One FROM and what follows it, as (instruction, arguments)."""

    image: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str:
        """The arguments that count, those of the last such instruction."""
        return next(text for word, text in reversed(self.steps) if word == instruction)

    def exec_form(self, instruction: str) -> list[str]:
        """The JSON array of an instruction; fails if a shell would run it."""
        text = self.last(instruction)
        found = json.loads(text[text.index("[") :])
        assert isinstance(found, list)
        return [str(word) for word in found]

    def sources(self) -> list[str]:
        """What is copied from the build context."""
        copies = [text.split() for word, text in self.steps if word == "COPY"]
        return [path for words in copies if "--from" not in words[0] for path in words[:-1]]


def stages(path: Path) -> list[Stage]:
    """The stages in order; ARG defaults are put in."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    steps = [line.strip().split(None, 1) for line in joined.splitlines() if line.strip()]
    args = dict(text.split("=", 1) for word, text in steps if word == "ARG")
    found: list[Stage] = []
    for word, text in steps:
        if word == "FROM":
            image, _, name = text.partition(" AS ")
            found.append(Stage(re.sub(r"\$\{(\w+)\}", lambda m: args[m[1]], image), name))
        elif found:
            found[-1].steps.append((word, text))
    return found
