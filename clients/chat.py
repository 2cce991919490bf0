"""A chat in the terminal: thinking dimmed, the answer, and what the strategy does as it happens.

Reads plain standard input as well, so it can be piped. Talks HTTP through the `openai` client.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import openai
from openai.types.chat import ChatCompletionMessageParam
from rich.console import Console

from clients.wire import Part, Told, add, parts, shortly

COMMANDS = """\
/strategy [NAME]   use a strategy (none: the model's own)
/params {...}      its parameters as a JSON object, or NAME=VALUE ...
/model [ID]        use a model
/new               forget the conversation
/quit              end (also Ctrl-D)"""


@dataclass
class Session:
    """A conversation and how it is decoded."""

    client: openai.OpenAI
    console: Console
    model: str
    strategy: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    messages: list[ChatCompletionMessageParam] = field(default_factory=list)

    @property
    def body(self) -> dict[str, Any]:
        """The request's `decoding` field."""
        chosen: dict[str, Any] = {"stream_events": True}
        if self.strategy is not None:
            chosen |= {"strategy": self.strategy, "params": self.params}
        elif self.params:
            chosen["params"] = self.params
        return {"decoding": chosen}


def talk(url: str, model: str | None, strategy: str | None) -> int:
    """Chats until the input ends; the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    client = openai.OpenAI(base_url=f"{url.rstrip('/')}/v1", **_key())
    try:
        session = Session(client, console, model or client.models.list().data[0].id, strategy)
    except openai.APIError as fault:
        console.print(f"no server at {url}: {fault} Start one with: satisfice serve", markup=False)
        return 1
    console.print(f"{session.model} · /help shows the commands", style="dim")
    for line in _lines(console):
        try:
            if _took_command(session, line):
                continue
            reply(session, line)
        except openai.APIError as fault:
            console.print(f"error: {fault.message}", style="red", markup=False)
        except KeyboardInterrupt:
            console.print("\n(stopped)", style="dim")
        except EOFError:
            break
    return 0


def _key() -> dict[str, Any]:
    """A server without keys takes any; the client insists on one."""
    import os

    return {} if os.environ.get("OPENAI_API_KEY") else {"api_key": "none"}


def _lines(console: Console) -> Iterator[str]:
    """What is typed or piped in; empty lines are left out."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = console.input(prompt) if prompt else next(sys.stdin)
        except (EOFError, StopIteration, KeyboardInterrupt):
            return
        if line.strip():
            yield line.strip()


def _took_command(session: Session, line: str) -> bool:
    """Does what a line that begins with `/` says; raises EOFError for /quit."""
    if not line.startswith("/"):
        return False
    command, _, rest = line.partition(" ")
    rest = rest.strip()
    if command == "/quit":
        raise EOFError
    if command == "/strategy":
        session.strategy, session.params = rest or None, {}
    elif command == "/params":
        _set_params(session, rest)
    elif command == "/model":
        session.model = rest or session.model
    elif command == "/new":
        session.messages.clear()
    else:
        session.console.print(COMMANDS, markup=False)
        return True
    chosen = session.strategy or "the model's own strategy"
    shown = json.dumps(session.params) if session.params else ""
    session.console.print(f"{session.model} · {chosen} {shown}", style="dim", markup=False)
    return True


def _set_params(session: Session, text: str) -> None:
    try:
        session.params = json.loads(text) if text.startswith("{") else dict(pairs(text.split()))
    except ValueError as fault:
        session.console.print(f"not parameters: {fault}", style="red", markup=False)


def pairs(words: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """NAME=VALUE, each value JSON where it reads as JSON, else text. Raises ValueError."""
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise ValueError(f"{word!r} is not NAME=VALUE")
        try:
            yield name, json.loads(value)
        except ValueError:
            yield name, value


def reply(session: Session, question: str) -> Told:
    """Asks, shows the answer as it comes and keeps both in the conversation."""
    told, shown = Told(), Shown(session.console)
    asked: ChatCompletionMessageParam = {"role": "user", "content": question}
    stream = session.client.chat.completions.create(
        model=session.model,
        messages=[*session.messages, asked],
        stream=True,
        stream_options={"include_usage": True},
        extra_body=session.body,
    )
    with stream:
        for part in parts(stream):
            add(told, part)
            shown.part(part)
    session.messages += [asked, {"role": "assistant", "content": told.content}]
    return told


class Shown:
    """Prints parts; a change from one kind to another begins a new line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def part(self, part: Part) -> None:
        """Prints one part as soon as it is there."""
        if self._last in ("reasoning", "content") and part.kind != self._last:
            self._console.print()
        self._last = part.kind
        if part.kind in ("reasoning", "content"):
            style = "dim" if part.kind == "reasoning" else None
            self._console.out(part.text, end="", style=style, highlight=False)
        elif line := self._line(part):
            self._console.print(line, style="cyan" if part.kind == "event" else "dim", markup=False)

    @staticmethod
    def _line(part: Part) -> str:
        if part.kind == "event":
            return f"  · {part.text}: {shortly(part.fields)}"
        if part.kind == "end":
            return f"[{part.text}] {shortly(part.fields)}"
        spent = part.fields.get("decoding") or {}
        told = {"prompt": part.fields["prompt_tokens"], "answer": part.fields["completion_tokens"]}
        return f"tokens: {shortly(told)}" + (f"; spent: {shortly(spent)}" if spent else "")
