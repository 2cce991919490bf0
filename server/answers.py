"""Shares added up: the objects of chat and text completions that are not streamed.

It does not know where pieces come from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from decoders.core.base import Piece, Usage
from server.objects import (
    AnswerMessage,
    CalledTool,
    ChatChoice,
    FinishReason,
    TextChoice,
)
from server.shares import ChatShape, Share, TextShape
from server.stream import Head, usage_of


@dataclass(slots=True)
class Sum:
    """All shares of one choice."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    last: Share = field(default_factory=Share)

    def add(self, share: Share) -> None:
        """Adds a share."""
        if share.content:
            self.content.append(share.content)
        if share.reasoning:
            self.reasoning.append(share.reasoning)
        if share.logprobs is not None:
            self.logprobs.append(share.logprobs)
        for call in share.calls:
            self._call(call)
        self.last = share

    def _call(self, call: Mapping[str, Any]) -> None:
        """A call's later arguments go on where the earlier ones ended."""
        if "id" in call:
            self.calls.append(
                {"id": call["id"], "type": "function", "function": dict(call["function"])}
            )
        else:
            self.calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]

    @property
    def text(self) -> str:
        """The content."""
        return "".join(self.content)


class Answer:
    """An answer as it grows: one sum per choice."""

    kind: str

    def __init__(self, head: Head, shapes: Sequence[ChatShape | TextShape]) -> None:
        self._head = head
        self._shapes = shapes
        self._sums = [Sum() for _ in shapes]

    def add(self, index: int, piece: Piece) -> None:
        """Adds a piece to a choice."""
        self._sums[index].add(self._shapes[index].feed(piece))

    def whole(self, usage: Usage) -> dict[str, Any]:
        """The object."""
        return {
            "id": self._head.id,
            "object": self.kind,
            "created": self._head.created,
            "model": self._head.model,
            "choices": [self._choice(i, found) for i, found in enumerate(self._sums)],
            "usage": usage_of(usage),
        }

    def _choice(self, index: int, found: Sum) -> Any:
        raise NotImplementedError


class ChatAnswer(Answer):
    """A chat completion."""

    kind = "chat.completion"
    _shapes: Sequence[ChatShape]

    def _choice(self, index: int, found: Sum) -> ChatChoice:
        entries = [entry for part in found.logprobs for entry in part]
        return {
            "index": index,
            "message": self._message(found, self._shapes[index].fields),
            "logprobs": {"content": entries, "refusal": None} if found.logprobs else None,
            "finish_reason": cast(FinishReason, found.last.finish),
            "stop_reason": found.last.stop_reason,
            "decoding": dict(found.last.decoding or {}),
        }

    def _message(self, found: Sum, fields: Sequence[str]) -> AnswerMessage:
        thought = "".join(found.reasoning) or None
        message: AnswerMessage = {
            "role": "assistant",
            "content": found.text,
            "refusal": found.last.refusal,
        }
        if "reasoning" in fields:
            message["reasoning"] = thought
        if "reasoning_content" in fields:
            message["reasoning_content"] = thought
        if found.calls:
            message["tool_calls"] = cast(list[CalledTool], found.calls)
        return message


class TextAnswer(Answer):
    """A text completion."""

    kind = "text_completion"

    def _choice(self, index: int, found: Sum) -> TextChoice:
        return {
            "index": index,
            "text": found.text,
            "logprobs": cast(Any, _joined(found.logprobs)),
            "finish_reason": cast(FinishReason, found.last.finish),
            "stop_reason": found.last.stop_reason,
            "decoding": dict(found.last.decoding or {}),
        }


def _joined(parts: Sequence[Mapping[str, list[Any]]]) -> dict[str, list[Any]] | None:
    """The four lists of all parts, each in a row."""
    if not parts:
        return None
    return {name: [one for part in parts for one in part[name]] for name in parts[0]}
