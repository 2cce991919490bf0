r"""Cuts a growing answer into steps: at blank lines, headings, lines, the end of thinking, a cap.

Cuts lie at token positions and depend on the tokens alone, so every way of reading the same tokens
cuts them alike. It knows no monitor and no strategy.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

from decoders.core.base import Channel, Think
from decoders.core.output import PRIMER
from decoders.core.think import Splitter
from engines.base import Delta, Finish, TokenLogprob
from engines.tokenizer import Tokenizer
from monitors.core.base import Stage

Boundary = Literal["paragraph", "heading", "line"]

BOUNDARIES: Mapping[Boundary, re.Pattern[str]] = {
    "paragraph": re.compile(r"\S[^\S\n]*\n[^\S\n]*\n"),
    "line": re.compile(r"\S[^\S\n]*\n"),
    "heading": re.compile(
        r"\S[^\S\n]*\n\s*"
        r"(?=#{1,6}[^\S\n]|\*{0,2}step[^\S\n]\d|\*{0,2}\d{1,2}[.)]\*{0,2}[^\S\n])",
        re.IGNORECASE,
    ),
}
LOOK = 8
"""Characters that may have to be known behind white space to tell that it is a boundary."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Where steps end. `most` is a step's longest length in tokens, markers not counted."""

    boundaries: frozenset[Boundary]
    most: int

    def whole(self, pieces: Sequence[str], searched: int = 0) -> int:
        """How many of the first tokens, which spell `pieces`, make a whole step; 0 if none yet.

        The first `searched` characters are known to end no step, so not all are searched again.
        """
        text = "".join(pieces)
        # A boundary begins at the letter before its white space.
        start = max(0, len(text[: max(0, searched - LOOK)].rstrip()) - 1)
        found = [self.most] if len(pieces) >= self.most else []
        if "\n" in text[start:]:
            found += self._at(text, start, pieces)
        return min(found, default=0)

    def _at(self, text: str, start: int, pieces: Sequence[str]) -> Iterator[int]:
        """Token counts at which a boundary cuts behind `start`, of those that show something."""
        for name in sorted(self.boundaries):
            hit = BOUNDARIES[name].search(text, start)
            if hit is None:
                continue
            ends = list(accumulate(map(len, pieces)))
            # A heading's own token goes with it, that of a line's end with the line.
            before = sum(end <= hit.end() for end in ends)
            count = before if name == "heading" else sum(end < hit.end() for end in ends) + 1
            if count and text[: ends[count - 1]].strip():
                yield count


@dataclass(frozen=True, slots=True)
class Step:
    """Tokens that stand or fall together, and the text they show.

    `text` leaves markers out; without any (a marker alone, blanks at an end) there is nothing to
    judge. `closing` says that thinking ends with this step, `finish` that the answer does.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None
    text: str
    stage: Stage
    closing: bool = False
    finish: Finish | None = None

    @property
    def blank(self) -> bool:
        """Whether it shows nothing."""
        return not self.text.strip()

    def parted(self, tokenizer: Tokenizer) -> tuple["Step", "Step"]:
        """The white space that it begins with, as a step, and the rest; a blank one is all rest."""
        stream, width, text = tokenizer.stream(), 0, ""
        for token in self.tokens:
            piece = stream.step(token)
            if self.blank or not piece.isspace() or not self.text.startswith(text + piece):
                break
            width, text = width + 1, text + piece
        entries = (self.logprobs[:width], self.logprobs[width:]) if self.logprobs else (None, None)
        return (
            Step(self.tokens[:width], entries[0], text, self.stage),
            replace(
                self, tokens=self.tokens[width:], logprobs=entries[1], text=self.text[len(text) :]
            ),
        )


class Cutter:
    """Takes an engine's deltas and gives the steps that they settle."""

    def __init__(
        self, tokenizer: Tokenizer, think: Think | None, opened: bool, rules: Rules,
        done: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """`think` None: all is answer. `opened` says that the first token stands in thinking.

        `done` are the tokens that stand already: a marker or a character may go on from them.
        """
        self._tokenizer, self._rules = tokenizer, rules
        self._splitter = Splitter(think, opened)
        self._splitter.follow(done)
        self._known = self._splitter.held  # of them so many may yet turn out to begin a marker
        self._channel = self._splitter.channel
        self._stream = tokenizer.stream()
        for token in done[-PRIMER:]:
            self._stream.step(token)
        self._held: list[tuple[int, TokenLogprob | None]] = []
        self._pending: list[tuple[int, TokenLogprob | None]] = []
        self._pieces: list[str] = []
        self._searched = 0

    def feed(self, delta: Delta) -> Iterator[Step]:
        """The steps that `delta` makes whole, in order."""
        entries: Sequence[TokenLogprob | None] = delta.logprobs or [None] * len(delta.tokens)
        for token, entry in zip(delta.tokens, entries, strict=True):
            self._held.append((token, entry))
            for _ in self._splitter.feed(token):
                self._settle()
                yield from self._whole()
            if self._splitter.channel is not self._channel:
                yield self._turned()
        if delta.finish is not None:
            for _ in self._splitter.flush():
                self._settle()
            yield self._cut(len(self._pending), finish=delta.finish)

    def _settle(self) -> None:
        """The oldest held token is no marker: it belongs to the step under way."""
        if self._known:
            self._known -= 1
            return
        self._pending.append(self._held.pop(0))
        self._pieces.append(self._stream.step(self._pending[-1][0]))

    def _whole(self) -> Iterator[Step]:
        while self._pending and (count := self._rules.whole(self._pieces, self._searched)):
            yield self._cut(count)
        self._searched = sum(map(len, self._pieces))

    def _turned(self) -> Step:
        """The marker that stands now: an opening one is a step of its own, a closing one an end."""
        self._pending += self._held
        self._held.clear()
        self._known = 0
        closing = self._channel is Channel.REASONING
        step = self._cut(len(self._pending), closing=closing)
        self._channel = self._splitter.channel
        self._stream = self._tokenizer.stream()
        return step

    def _cut(self, count: int, closing: bool = False, finish: Finish | None = None) -> Step:
        taken, self._pending = self._pending[:count], self._pending[count:]
        text = "".join(self._pieces[:count])
        self._pieces, self._searched = self._pieces[count:], 0
        entries = tuple(entry for _, entry in taken if entry is not None)
        stage = Stage.THINKING if self._channel is Channel.REASONING else Stage.ANSWER
        tokens = tuple(token for token, _ in taken)
        return Step(tokens, entries or None, text, stage, closing, finish)
