"""Shares as server-sent events: the chunks of chat and text completions.

A token's way to the client is hot: all that is the same in every chunk is made once, and only a
text is quoted. It does not know where pieces come from.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from decoders.core.base import Piece, Usage
from server.shares import ChatShape, Share, TextShape
from server.wire import dumps, quote

DONE = "data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


@dataclass(frozen=True, slots=True)
class Head:
    """What every object of one answer says."""

    id: str
    created: int
    model: str

    @classmethod
    def fresh(cls, prefix: str, model: str) -> Self:
        """A new answer's, from now."""
        return cls(f"{prefix}-{uuid.uuid4().hex}", int(time.time()), model)


def usage_of(usage: Usage) -> dict[str, Any]:
    """The `usage` object: what the client was given, and under `decoding` what was spent."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.committed_tokens,
        "total_tokens": usage.prompt_tokens + usage.committed_tokens,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "decoding": usage.decoding(),
    }


class Events:
    """The events of one answer.

    `include_usage` says that a last chunk will have the usage; `running` is the number of the
    prompt's tokens if every chunk is to say how far the answer has come, else None.
    """

    kind: str

    def __init__(
        self,
        head: Head,
        shapes: Sequence[ChatShape | TextShape],
        include_usage: bool = False,
        running: int | None = None,
    ) -> None:
        self._shapes = shapes
        self._running = running
        self._given = 0
        opening = {"id": head.id, "object": self.kind, "created": head.created}
        self._opening = f"data: {dumps({**opening, 'model': head.model})[:-1]}"
        self._closing = ',"usage":null}\n\n' if include_usage else "}\n\n"
        self._begun = [False] * len(shapes)
        self._texts = [self._before_text(i) for i in range(len(shapes))]
        self._after_text = f"{self._after()}]{self._closing}"

    def _before_text(self, index: int) -> str:
        raise NotImplementedError

    def _after(self) -> str:
        raise NotImplementedError

    def _first(self, index: int) -> str:
        """What goes before a choice's first share."""
        return ""

    def _choices(self, index: int, share: Share) -> list[dict[str, Any]]:
        """The chunks that a share needs."""
        raise NotImplementedError

    def event(self, index: int, piece: Piece) -> str:
        """What goes to the client for a piece; "" for nothing."""
        first = ""
        if not self._begun[index]:
            self._begun[index] = True
            first = self._first(index)
        shape = self._shapes[index]
        if (
            shape.simple
            and piece.finish is None
            and piece.logprobs is None
            and piece.event is None
            and not piece.reasoning
            and self._running is None
        ):
            return first + self._texts[index] + quote(piece.content) + self._after_text
        self._given += len(piece.tokens)
        chunks = self._choices(index, shape.feed(piece))
        return first + "".join(map(self._chunk, chunks))

    def _chunk(self, choice: Mapping[str, Any]) -> str:
        if self._running is None:
            return f'{self._opening},"choices":[{dumps(choice)}]{self._closing}'
        usage = {
            "prompt_tokens": self._running,
            "completion_tokens": self._given,
            "total_tokens": self._running + self._given,
        }
        return f'{self._opening},"choices":[{dumps(choice)}],"usage":{dumps(usage)}}}\n\n'

    def usage(self, usage: Usage) -> str:
        """The last chunk, for clients that asked for it."""
        return f'{self._opening},"choices":[],"usage":{dumps(usage_of(usage))}}}\n\n'


def _last(share: Share) -> dict[str, Any]:
    return {
        "finish_reason": share.finish,
        "stop_reason": share.stop_reason,
        "decoding": share.decoding,
    }


class ChatEvents(Events):
    """The events of a chat completion."""

    kind = "chat.completion.chunk"
    _shapes: Sequence[ChatShape]

    def _before_text(self, index: int) -> str:
        return f'{self._opening},"choices":[{{"index":{index},"delta":{{"content":'

    def _after(self) -> str:
        return '},"logprobs":null,"finish_reason":null}'

    def _first(self, index: int) -> str:
        return self._chunk(_part(index, {"role": "assistant", "content": ""}))

    def _choices(self, index: int, share: Share) -> list[dict[str, Any]]:
        chunks: list[dict[str, Any]] = []
        delta = _delta(share, self._shapes[index].fields)
        if share.logprobs is not None:
            found = {"content": share.logprobs, "refusal": None}
            chunks.append(_part(index, delta or {"content": ""}, logprobs=found))
        elif delta:
            chunks.append(_part(index, delta))
        if share.event is not None:
            chunks.append(_part(index, {}, decoding=share.event))
        if share.finish is not None:
            refusal = {} if share.refusal is None else {"refusal": share.refusal}
            chunks.append(_part(index, refusal, **_last(share)))
        return chunks


def _part(index: int, delta: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """One choice of one chat chunk."""
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}


def _delta(share: Share, fields: Sequence[str]) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if share.reasoning:
        delta |= dict.fromkeys(fields, share.reasoning)
    if share.content:
        delta["content"] = share.content
    if share.calls:
        delta["tool_calls"] = share.calls
    return delta


class TextEvents(Events):
    """The events of a text completion."""

    kind = "text_completion"

    def _before_text(self, index: int) -> str:
        return f'{self._opening},"choices":[{{"index":{index},"text":'

    def _after(self) -> str:
        return ',"logprobs":null,"finish_reason":null}'

    def _choices(self, index: int, share: Share) -> list[dict[str, Any]]:
        chunks: list[dict[str, Any]] = []
        part = {"index": index, "text": share.content}
        if share.content or share.logprobs is not None:
            chunks.append({**part, "logprobs": share.logprobs, "finish_reason": None})
        empty = {"index": index, "text": ""}
        if share.event is not None:
            event = {"logprobs": None, "finish_reason": None, "decoding": share.event}
            chunks.append({**empty, **event})
        if share.finish is not None:
            chunks.append({**empty, "logprobs": None, **_last(share)})
        return chunks
