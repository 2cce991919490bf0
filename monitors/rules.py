"""Patterns and word lists that must not occur: no model, the same verdict every time.

All that was said is searched at each call, so what goes over the border of two steps is found. The
patterns are the operator's own; the work on a text is bounded all the same. It knows no model.
"""

import asyncio
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import regex
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from monitors.core.base import (
    Calibration,
    Message,
    Monitor,
    Score,
    Stage,
    UnreadableError,
)
from monitors.core.bounded import TooCostlyError, check_pattern, occurs
from monitors.core.registry import Parts
from monitors.core.spec import MonitorSpec
from monitors.core.texts import said

TEXT_CHARS = 1_000_000
"""The longest text that is searched."""

Pattern = Annotated[str, AfterValidator(check_pattern)]
Finds = Callable[[str], bool]


class Rule(BaseModel):
    """What one rule looks for: any of its patterns, any of its words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patterns: tuple[Pattern, ...] = Field((), description="the `regex` package's dialect")
    words: tuple[str, ...] = Field((), description="words and phrases")
    words_file: Path | None = Field(None, description="more of them, one a line; # begins a remark")
    match_case: bool = Field(False, description="upper and lower case differ")
    whole_words: bool = Field(
        True,
        description="a word inside another one does not count; false for scripts without spaces",
    )

    @field_validator("words")
    @classmethod
    def _no_empty_word(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not all(spelled(word).split() for word in words):
            raise ValueError("a word must not be empty")
        return words

    @model_validator(mode="after")
    def _looks_for_something(self) -> Self:
        if not (self.patterns or self.words or self.words_file):
            raise ValueError("needs patterns, words or a words_file")
        return self


class Spec(MonitorSpec):
    """`{kind: rules, rules: {NAME: {words: [...], patterns: [...]}}}`.

    The value is -1.0 where a rule is broken, with its name as the label, else 1.0.
    """

    kind: Literal["rules"]
    rules: dict[str, Rule] = Field(
        min_length=1,
        description="by name: `patterns`, `words`, `words_file` (one a line), `match_case` (false) "
        "and `whole_words` (true)",
    )
    stages: tuple[Literal["thinking", "answer"], ...] = Field(
        ("thinking", "answer"), min_length=1, description="what of the assistant's is searched"
    )
    user: bool = Field(False, description="the user's turns are searched too")


class Rules(Monitor):
    """Which rule a text breaks; the first one configured counts."""

    kind = "rules"
    unit = "margin"
    judges = "safety"
    floor, ceiling = -1.0, 1.0
    calibration = Calibration("margin", 0.0, 1.0, threshold=0.0, low=-1.0, high=1.0)

    def __init__(self, name: str, spec: Spec) -> None:
        """Raises ValueError for a words_file that cannot be read."""
        self.name = name
        self._spec = spec
        self._rules: Mapping[str, Sequence[Finds]] = {
            rule: list(finders(own, f"rules.{rule}")) for rule, own in spec.rules.items()
        }

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        """1.0, or -1.0 with the broken rule's name as label."""
        texts = self._searched(conversation, steps, stage)
        if max(map(len, texts), default=0) > TEXT_CHARS:
            raise UnreadableError(f"monitor {self.name!r} reads {TEXT_CHARS} characters")
        try:
            broken = await asyncio.to_thread(self._broken, texts)
        except TooCostlyError as cost:
            raise UnreadableError(f"monitor {self.name!r}: {cost}") from cost
        value = 1.0 if broken is None else -1.0
        return Score(value, value, broken)

    def _broken(self, texts: Sequence[str]) -> str | None:
        for rule, finds in self._rules.items():
            if any(find(text) for find in finds for text in texts):
                return rule
        return None

    def _searched(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> list[str]:
        """Texts that are searched one by one; a match does not go from one to the next."""
        if not steps:
            # The conversation alone is judged: then its last message counts, whoever wrote it.
            earlier, last = conversation[:-1], conversation[-1:]
            return [*self._users(earlier), *map(said, last)]
        cut = len(steps) - 1 if stage is Stage.ANSWER else len(steps)
        first = 0 if "thinking" in self._spec.stages else cut
        last_step = len(steps) if "answer" in self._spec.stages else cut
        return [*self._users(conversation), "".join(steps[first:last_step])]

    def _users(self, conversation: Sequence[Message]) -> list[str]:
        if not self._spec.user:
            return []
        return [said(message) for message in conversation if message.get("role") == "user"]


def finders(rule: Rule, place: str) -> Iterator[Finds]:
    """What looks for each part of a rule; `place` names it in the configuration."""
    flags = 0 if rule.match_case else regex.IGNORECASE | regex.FULLCASE
    for pattern in rule.patterns:
        compiled = regex.compile(pattern, flags)
        yield lambda text, compiled=compiled: occurs(compiled, text, TEXT_CHARS)  # type: ignore[misc]
    words = [*rule.words, *(_listed(rule.words_file, place) if rule.words_file else ())]
    if words:
        listed = wordlist(words, rule.whole_words, flags)
        yield lambda text: occurs(listed, spelled(text), TEXT_CHARS * 4)


def wordlist(words: Sequence[str], whole: bool, flags: int) -> "regex.Pattern[str]":
    """One pattern for all of them; any white space stands for that inside a phrase."""
    split = sorted({tuple(spelled(word).split()) for word in words})
    single = {parts[0] for parts in split if len(parts) == 1}
    phrases = [r"\s+".join(map(regex.escape, parts)) for parts in split if len(parts) > 1]
    either = "|".join([*([r"\L<single>"] if single else []), *phrases])
    pattern = rf"(?<!\w)(?:{either})(?!\w)" if whole else f"(?:{either})"
    listed = {"single": single} if single else {}
    return regex.compile(pattern, flags, **listed)


def spelled(text: str) -> str:
    """Compatibility forms (wide letters, ligatures) as plain ones, without invisible characters."""
    plain = unicodedata.normalize("NFKC", text)
    if plain.isascii():
        return plain
    return "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")


def _listed(path: Path, place: str) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as fault:
        raise ValueError(f"{place}.words_file: cannot be read: {fault}") from fault
    words = [word for line in lines if (word := spelled(line.partition("#")[0]).strip())]
    if not words:
        raise ValueError(f"{place}.words_file: {path} holds no word")
    return words


def make(name: str, spec: Spec, parts: Parts) -> Rules:
    """The configured rules."""
    return Rules(name, spec)
