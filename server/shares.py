"""What each piece of a run adds to an answer as the client sees it.

The one function that streamed and unstreamed answers share: a stream writes shares down, an
unstreamed answer adds them up. It knows no HTTP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from decoders.core.base import Piece, Think
from server.calls import Call, Reader
from server.logprobs import Names, TextEntries, chat_entries

NAMES = {
    "both": ("reasoning", "reasoning_content"),
    "reasoning": ("reasoning",),
    "reasoning_content": ("reasoning_content",),
    "think_tags": (),
    "hidden": (),
}
"""The fields that thinking goes to, by `reasoning_format`."""


@dataclass(slots=True)
class Share:
    """What one piece adds to one choice. `logprobs` is in the endpoint's own form."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    logprobs: Any = None
    event: Mapping[str, Any] | None = None
    finish: str | None = None
    stop_reason: str | int | None = None
    refusal: str | None = None
    decoding: Mapping[str, Any] | None = None


def _ended(share: Share, piece: Piece) -> None:
    """Adds what stands on a last piece."""
    share.finish = piece.finish
    share.stop_reason = piece.stop_reason
    share.refusal = piece.refusal
    share.decoding = piece.summary.as_dict() if piece.summary is not None else None


class ChatShape:
    """One chat choice: where thinking goes, calls, log-probabilities.

    `simple`: a piece of content only goes to the client as it is.
    """

    def __init__(
        self, reasoning_format: str, think: Think | None, names: Names, reader: Reader | None
    ) -> None:
        self.fields = NAMES[reasoning_format]
        self.simple = reasoning_format != "think_tags" and reader is None
        self._tags = (think.open, think.close) if think else ("<think>", "</think>")
        self._tagged = reasoning_format == "think_tags"
        self._hidden = reasoning_format == "hidden"
        self._inside = False
        self._names = names
        self._reader = reader
        self._called = False

    def feed(self, piece: Piece) -> Share:
        """The share of a piece."""
        share = Share(piece.content, "" if self._hidden else piece.reasoning, event=piece.event)
        if piece.logprobs is not None:
            share.logprobs = chat_entries(self._names, piece.logprobs)
        if piece.finish is not None:
            _ended(share, piece)
        if self._tagged:
            self._tag(share)
        if self._reader is not None:
            self._read(share, self._reader)
        return share

    def _tag(self, share: Share) -> None:
        """Thinking becomes content between the model's markers."""
        before = after = ""
        if share.reasoning and not self._inside:
            before, self._inside = self._tags[0], True
        if self._inside and (share.content or share.finish is not None):
            after, self._inside = self._tags[1], False
        share.content = before + share.reasoning + after + share.content
        share.reasoning = ""

    def _read(self, share: Share, reader: Reader) -> None:
        """Calls leave the content."""
        share.content, share.calls = reader.feed(share.content)
        if share.finish is not None:
            content, calls = reader.end()
            share.content += content
            share.calls += calls
        self._called = self._called or bool(share.calls)
        if share.finish == "stop" and self._called:
            share.finish = reader.finish


class TextShape:
    """One text choice."""

    simple = True

    def __init__(self, names: Names, top: int) -> None:
        self._entries = TextEntries(names, top)

    def feed(self, piece: Piece) -> Share:
        """The share of a piece."""
        share = Share(piece.reasoning + piece.content, event=piece.event)
        if piece.logprobs is not None:
            share.logprobs = self._entries.add(piece.logprobs)
        if piece.finish is not None:
            _ended(share, piece)
        return share
