"""What a streamed answer carries beyond the standard fields, read through the `openai` client.

Knows the wire only: extra fields of chunks and of usage. Prints nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from openai.types.chat import ChatCompletionChunk


@dataclass(frozen=True)
class Part:
    """One thing that a chunk brought: text, an event, the end, or the usage."""

    kind: str
    text: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Told:
    """A whole streamed answer of one choice."""

    reasoning: str = ""
    content: str = ""
    finish: str = ""
    decoding: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] = field(default_factory=dict)
    events: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def spent(self) -> Mapping[str, Any]:
        """`usage.decoding`: what was spent in all."""
        spent: Mapping[str, Any] = self.usage.get("decoding") or {}
        return spent


def parts(stream: Iterable[ChatCompletionChunk]) -> Iterator[Part]:
    """The chunks' contents in order; kinds: reasoning, content, event, end, usage."""
    for chunk in stream:
        for choice in chunk.choices:
            extra = choice.delta.model_extra or {}
            if thought := extra.get("reasoning") or extra.get("reasoning_content"):
                yield Part("reasoning", thought)
            if choice.delta.content:
                yield Part("content", choice.delta.content)
            decoding = (choice.model_extra or {}).get("decoding") or {}
            if "event" in decoding:
                yield Part("event", str(decoding["event"]), decoding)
            if choice.finish_reason:
                yield Part("end", choice.finish_reason, decoding)
        if chunk.usage is not None:
            yield Part("usage", fields=chunk.usage.model_dump())


def gather(stream: Iterable[ChatCompletionChunk]) -> Told:
    """A stream read to its end."""
    told = Told()
    for part in parts(stream):
        add(told, part)
    return told


def add(told: Told, part: Part) -> None:
    """Adds what a chunk brought to what was told so far."""
    if part.kind == "reasoning":
        told.reasoning += part.text
    elif part.kind == "content":
        told.content += part.text
    elif part.kind == "event":
        told.events.append(part.fields)
    elif part.kind == "end":
        told.finish, told.decoding = part.text, part.fields
    else:
        told.usage = part.fields


def shortly(fields: Mapping[str, Any], leave_out: Iterable[str] = ()) -> str:
    """`name value` pairs of what is small enough to show; nested objects are left out."""
    skipped = {"event", "trace", *leave_out}
    shown = {k: v for k, v in fields.items() if k not in skipped and v not in (None, "", [], {})}
    pairs = [f"{k.replace('_', ' ')} {_value(v)}" for k, v in shown.items() if _small(v)]
    return ", ".join(pairs)


def _small(value: Any) -> bool:
    return isinstance(value, str | int | float) and len(str(value)) <= 60


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
