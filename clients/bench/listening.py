"""Reads one streamed chat answer as it comes and notes when everything in it arrived.

Knows the wire (server-sent events of an OpenAI-compatible server) and a clock; it sends nothing and
chooses nothing. Fields of other servers that are missing stay empty.
"""

import json
import time
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, field
from typing import Any

Clock = Callable[[], float]
DIGITS = 4
"""Of a time in seconds: a tenth of a millisecond."""


@dataclass
class Heard:
    """What has come of one answer; times are seconds after `began`."""

    began: float
    reasoning: list[float] = field(default_factory=list)
    content: list[float] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    text: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    decoding: dict[str, Any] = field(default_factory=dict)
    finish: str = ""
    error: str | None = None
    done: bool = False

    def add(self, message: str, now: float) -> None:
        """Takes one event of the stream; comments (keep-alive) say nothing."""
        lines = (line for line in message.split("\n") if line.startswith("data:"))
        told = "\n".join(line.removeprefix("data:").strip() for line in lines)
        if not told:
            return
        if told == "[DONE]":
            self.done = True
            return
        chunk = json.loads(told)
        if "error" in chunk:
            self.error = f"stream: {chunk['error'].get('message', '')}"[:300]
        for choice in chunk.get("choices") or ():
            self._choice(choice, round(now - self.began, DIGITS))
        self.usage = chunk.get("usage") or self.usage

    def _choice(self, choice: dict[str, Any], at: float) -> None:
        delta = choice.get("delta") or {}
        if delta.get("reasoning") or delta.get("reasoning_content"):
            self.reasoning.append(at)
        if text := delta.get("content"):
            self.content.append(at)
            self.text += text
        decoding = choice.get("decoding") or {}
        if "event" in decoding:
            self.events.append((at, str(decoding["event"])))
        elif decoding:
            self.decoding = {k: v for k, v in decoding.items() if k != "trace"}
        self.finish = choice.get("finish_reason") or self.finish

    def fault(self) -> str | None:
        """Why this is no complete answer; None if it is one."""
        if self.error is not None:
            return self.error
        if not self.done:
            return "stream: ended without [DONE]"
        return None if self.finish else "stream: no finish_reason"


async def listen(
    body: AsyncIterable[bytes], began: float, clock: Clock = time.perf_counter
) -> Heard:
    """Everything in a stream of server-sent events, until its end."""
    heard, rest = Heard(began), b""
    async for part in body:
        now, rest = clock(), rest + part
        # The second half of a line's end may still be on its way.
        cut = len(rest) - rest.endswith(b"\r")
        *whole, left = lines(rest[:cut]).split(b"\n\n")
        rest = left + rest[cut:]
        for message in whole:
            heard.add(message.decode(), now)
    for message in lines(rest).split(b"\n\n")[:-1]:
        heard.add(message.decode(), clock())
    return heard


def lines(text: bytes) -> bytes:
    """The same with ends of lines of one kind; servers may send any of three."""
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
