"""A guard's prompt in token ids and the ids its verdict begins with, by the guard's own tokenizer.

It knows families, templates and tokenizers, but no model: who reads the prompt is not its business.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from engines.tokenizer import TemplateFault, Tokenizer
from monitors.core.base import Message, UnreadableError
from monitors.core.families import Family
from monitors.core.transcript import Turn, turns

PROBE = (Turn("user", "xyzzy plugh"), Turn("assistant", "plover fee"))
LEAST = -1000.0
"""Logarithm of a probability that is none."""


@dataclass(frozen=True)
class Balance:
    """Probabilities of the two verdicts as logarithms of their sums over spellings."""

    safe: float
    unsafe: float

    @property
    def mass(self) -> float:
        """Probability that the guard says either."""
        return math.exp(self.safe) + math.exp(self.unsafe)

    @property
    def margin(self) -> float:
        """(p_safe - p_unsafe) / (p_safe + p_unsafe)."""
        return math.tanh((self.safe - self.unsafe) / 2)


class Verdicts:
    """How one checkpoint is asked and answers."""

    def __init__(
        self, tokenizer: Tokenizer, family: Family, unsure_is: Literal["safe", "unsafe"] = "unsafe"
    ) -> None:
        """Raises ValueError if the tokenizer or its template does not fit the family."""
        if not tokenizer.hf.chat_template:
            raise ValueError("its tokenizer has no chat template")
        self._tokenizer = tokenizer
        self._family = family
        self._special = _special(tokenizer)
        self._parts = self._form() == "parts"
        self._before = self._lead(self._rendered(PROBE))
        self._tail: list[int] = []
        self.safe, self.unsafe, *unsure = self._verdict_ids()
        for ids in unsure:
            (self.safe if unsure_is == "safe" else self.unsafe).extend(ids)

    @property
    def tokens(self) -> list[int]:
        """Ids whose probabilities are asked for."""
        return [*self.safe, *self.unsafe]

    def prompt(self, conversation: Sequence[Message], steps: Sequence[str]) -> list[int]:
        """Ids up to the verdict. Raises UnreadableError if the template cannot show all of it."""
        told = [self._plain(turn) for turn in turns(conversation, steps, self._family)]
        try:
            text = self._rendered(told)
        except TemplateFault as fault:
            raise UnreadableError(f"the guard's template refuses this: {fault}") from fault
        if left_out := [turn.role for turn in told if turn.text.strip() not in text]:
            raise UnreadableError(f"the guard's template leaves out text of the {left_out[-1]}")
        ids = self._encoded(text + self._before + self._family.safe[0])
        if ids[-len(self._tail) :] != self._tail:
            raise UnreadableError("the prompt's end is not read as it was when the guard started")
        return ids[: -len(self._tail)]

    def weighed(self, logprobs: Sequence[float]) -> Balance:
        """The two verdicts by the log-probabilities of `tokens`."""
        at = len(self.safe)
        return Balance(_sum(logprobs[:at]), _sum(logprobs[at:]))

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, special=False)

    def _plain(self, turn: Turn) -> Turn:
        """The turn with control tokens broken up: a text must not end its own message."""
        text = self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", turn.text)
        return Turn(turn.role, text)

    def _rendered(self, told: Sequence[Turn]) -> str:
        return self._tokenizer.render(
            [{"role": role, "content": self._content(text)} for role, text in told],
            **self._family.arguments,
        )

    def _content(self, text: str) -> str | list[dict[str, str]]:
        return [{"type": "text", "text": text}] if self._parts else text

    def _form(self) -> str:
        """The first form of content that the template shows; others it would drop in silence."""
        refused = "it shows no text"
        for form in self._family.content:
            self._parts = form == "parts"
            try:
                text = self._rendered(PROBE)
            except TemplateFault as fault:
                refused = str(fault)
            else:
                if all(turn.text in text for turn in PROBE):
                    return form
        raise ValueError(f"its chat template does not fit the family: {refused}")

    def _lead(self, prompt: str) -> str:
        """What is written ahead of the verdict, unless the template has written it already."""
        return "" if prompt.endswith(self._family.before) else self._family.before

    def _verdict_ids(self) -> list[list[int]]:
        """For each verdict the ids that it may begin with, right behind the prompt."""
        start = self._rendered(PROBE) + self._before
        words = [self._family.safe, self._family.unsafe]
        words += [self._family.unsure] if self._family.unsure else []
        usual = [self._encoded(start + spellings[0]) for spellings in words]
        shared = _shared(usual)
        # A blank at the end may join the verdict's token, so the prompt may be one shorter.
        apart = len({ids[len(shared)] for ids in usual if ids[len(shared) :]}) == len(usual)
        if not apart or len(shared) > len(self._encoded(start)):
            named = ", ".join(repr(spellings[0]) for spellings in words)
            raise ValueError(f"of the verdicts {named} two begin with the same token")
        self._tail = usual[0][len(shared) :]
        found = [self._firsts(spellings, start, shared) for spellings in words]
        return [
            [token for at, token in enumerate(own) if at == 0 or not _among(token, found, own)]
            for own in found
        ]

    def _firsts(self, spellings: Sequence[str], start: str, shared: Sequence[int]) -> list[int]:
        """First ids behind `shared`; a spelling that changes what stands before it has none."""
        known = [self._encoded(start + word) for word in spellings]
        at = len(shared)
        return list(dict.fromkeys(ids[at] for ids in known if ids[:at] == shared and ids[at:]))


def _special(tokenizer: Tokenizer) -> re.Pattern[str]:
    """Matches what the tokenizer reads as a control token."""
    added = tokenizer.hf.added_tokens_decoder.values()
    words = sorted((t.content for t in added if t.special and len(t.content) > 1), key=len)
    return re.compile("|".join(map(re.escape, reversed(words))) or r"(?!)")


def _shared(every: Sequence[list[int]]) -> list[int]:
    """The longest beginning that all have."""
    columns = zip(*every, strict=False)
    return [ids[0] for ids in takewhile(lambda column: len(set(column)) == 1, columns)]


def _among(token: int, every: Sequence[Sequence[int]], own: Sequence[int]) -> bool:
    """Whether another verdict may begin with this token too."""
    return any(token in other for other in every if other is not own)


def _sum(logprobs: Sequence[float]) -> float:
    """log of the sum of the probabilities; far below all for none, so that margins stay finite."""
    most = max(logprobs)
    if most < LEAST:
        return LEAST
    return most + math.log(sum(math.exp(one - most) for one in logprobs))
