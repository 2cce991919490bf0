"""From committed tokens to text: detokenizes, splits reasoning from content, finds stop strings.

The streamed and the unstreamed answer are both folds over the pieces made here. It does not know
which strategy committed the tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from decoders.core.base import Channel, Commit, DecodeRequest, Piece, Think
from decoders.core.think import Splitter
from engines.base import Finish, TokenLogprob
from engines.tokenizer import Detokenizer, Tokenizer

PRIMER = 6  # prompt tokens that a detokenizer reads first, so that a word's leading space is right


@dataclass(frozen=True, slots=True)
class Reading:
    """The two texts of an answer."""

    reasoning: str
    content: str


class StopStrings:
    """Finds stop strings in growing text and holds back what may begin one."""

    def __init__(self, stops: Sequence[str], include: bool) -> None:
        """`include` keeps the stop string in the text."""
        self._stops = [stop for stop in stops if stop]
        self._include = include
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """The part of held and new text that no stop string can claim any more."""
        if not self._stops:
            return text
        text = self._held + text
        hits = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if hits:
            at, self.found = min(hits, key=lambda hit: (hit[0] + len(hit[1]), hit[0]))
            self._held = ""
            return text[: at + len(self.found) * self._include]
        keep = self._open_end(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _open_end(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = max(map(len, self._stops)) - 1
        for size in range(min(longest, len(text)), 0, -1):
            end = text[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0

    def flush(self) -> str:
        """What was held back when the stream ended without a stop string."""
        held, self._held = self._held, ""
        return held


class Transcript:
    """Folds commits into pieces; counts what was committed."""

    def __init__(self, request: DecodeRequest) -> None:
        """One transcript per choice."""
        self._request = request
        self._tokenizer: Tokenizer = request.engine.tokenizer
        self._splitter = Splitter(request.think if request.chat else None, request.think_open)
        self._stops = StopStrings(request.stop, request.include_stop)
        self._primer = () if request.chat else request.prompt[-PRIMER:]
        self._stream = self._fresh()
        self._channel = self._splitter.channel
        self._trim = request.chat and request.think is not None
        self.committed = self.forced = self.reasoning = self.sampled = 0
        self.taken = 0  # of the last commit
        self.finish: Finish | None = None
        self.last: int | None = None

    def _fresh(self) -> Detokenizer:
        stream = self._tokenizer.stream(skip_special=self._request.skip_special)
        for token in self._primer:
            stream.step(token)
        self._primer = ()
        return stream

    @property
    def stop(self) -> str | None:
        """The stop string that was found, if any."""
        return self._stops.found

    def add(self, commit: Commit) -> Piece:
        """Takes a commit; returns the text that stands by it (maybe none)."""
        shown = ["", ""]
        taken = 0
        commit = self._capped(commit)
        hidden = self._hidden(commit)
        for token in commit.tokens:
            taken += 1
            self.reasoning += self._splitter.thinking
            if taken != hidden:
                self._show(token, shown)
            if self._stops.found is not None:
                break
        self._count(commit, taken)
        return Piece(shown[0], shown[1], commit.tokens[:taken], _entries(commit, taken))

    def _capped(self, commit: Commit) -> Commit:
        """What of a commit the answer has room for; only what was not sampled can be too much."""
        room = self._request.max_tokens - self.committed
        if len(commit.tokens) <= room:
            return commit
        return replace(commit, tokens=commit.tokens[:room], finish=Finish.LENGTH)

    def _hidden(self, commit: Commit) -> int:
        """Position (from 1) of the stop token that ends the answer and is not shown; 0 if none."""
        ends = commit.finish is Finish.STOP and not self._request.include_stop
        return len(commit.tokens) if ends else 0

    def _count(self, commit: Commit, taken: int) -> None:
        self.taken = taken
        self.committed += taken
        self.forced += taken * commit.forced
        if not commit.forced:
            self.sampled += taken if commit.sampled is None else commit.sampled
        if taken:
            self.last = commit.tokens[taken - 1]
        self.finish = commit.finish

    def _show(self, token: int, shown: list[str]) -> None:
        for settled, channel in self._splitter.feed(token):
            if channel is not self._channel:
                self._turn(channel)
            self._place(self._stream.step(settled), shown)

    def _turn(self, channel: Channel) -> None:
        """Begins the other channel with a detokenizer of its own."""
        self._channel = channel
        self._stream = self._fresh()
        self._trim = True

    def _place(self, text: str, shown: list[str]) -> None:
        if self._trim and text:
            text = text.lstrip()
            self._trim = not text
        if self._channel is Channel.REASONING:
            shown[0] += text
        else:
            shown[1] += self._stops.feed(text)

    def end(self) -> Piece:
        """What was held back, now that nothing more comes."""
        shown = ["", ""]
        if self._stops.found is None:
            for settled, _ in self._splitter.flush():
                self._place(self._stream.step(settled), shown)
            if self._stops.found is None:
                shown[1] += self._stops.flush()
        return Piece(shown[0], shown[1])


def _entries(commit: Commit, taken: int) -> list[tuple[int, TokenLogprob | None]] | None:
    if commit.logprobs is None:
        return None
    return list(zip(commit.tokens[:taken], commit.logprobs, strict=False))


def read(tokenizer: Tokenizer, think: Think | None, opened: bool, tokens: Sequence[int]) -> Reading:
    """The reasoning and content texts of a whole answer, special tokens left out."""
    splitter = Splitter(think, opened)
    parts: dict[Channel, list[int]] = {Channel.REASONING: [], Channel.CONTENT: []}
    for token in tokens:
        for settled, channel in splitter.feed(token):
            parts[channel].append(settled)
    for settled, channel in splitter.flush():
        parts[channel].append(settled)
    reasoning, content = (tokenizer.decode(parts[channel]) for channel in Channel)
    return Reading(reasoning.lstrip(), content.lstrip())
