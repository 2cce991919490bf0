"""Tool calls: the grammar that forces them, and how they are found in an answer's content.

One reader per choice: it is fed content as it comes and gives content and calls in the API's
streamed form. It knows no model; the form of free calls is `<tool_call>{...}</tool_call>`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

from decoders.core.base import RequestError
from engines.base import Engine, Structured, StructuredKind, ToolParser
from server.bodies import ChatBody, NamedTool, Tool

OPEN, CLOSE = "<tool_call>", "</tool_call>"

Call = dict[str, Any]
Found = tuple[str, list[Call]]


class Reader(Protocol):
    """Finds calls in growing content; `finish` is the finish_reason of a choice with calls."""

    finish: str

    def feed(self, content: str) -> Found:
        """Content and calls that are settled by `content`."""

    def end(self) -> Found:
        """What was held back, now that nothing more comes."""


def _call(index: int, name: str, arguments: str) -> Call:
    function = {"name": name, "arguments": arguments}
    return {
        "index": index,
        "id": f"call_{uuid4().hex[:24]}",
        "type": "function",
        "function": function,
    }


class OneCall:
    """The one function that had to be called: all content is its arguments."""

    finish = "stop"

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun = False

    def feed(self, content: str) -> Found:
        """The arguments as they come."""
        if not content:
            return "", []
        if self._begun:
            return "", [{"index": 0, "function": {"arguments": content}}]
        self._begun = True
        return "", [_call(0, self._name, content)]

    def end(self) -> Found:
        """Nothing is held back."""
        return "", []


class ListedCalls:
    """Some function had to be called: content is a JSON list of names and parameters."""

    finish = "tool_calls"

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._held = ""

    def feed(self, content: str) -> Found:
        """Holds everything back: half a list says nothing."""
        self._held += content
        return "", []

    def end(self) -> Found:
        """The calls; content that is no such list stays content."""
        try:
            listed = json.loads(self._held)
            calls = [
                _call(i, str(one["name"]), json.dumps(one["parameters"]))
                for i, one in enumerate(listed[: self._most])
            ]
        except (ValueError, TypeError, KeyError, RecursionError):
            return self._held, []
        return "", calls


class FreeCalls:
    """The model may call: content streams until a call begins, then calls are found at the end."""

    finish = "tool_calls"

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._held = ""

    def feed(self, content: str) -> Found:
        """The content that no call can claim."""
        self._held += content
        at = self._held.find(OPEN)
        keep = len(self._held) - at if at >= 0 else _open_end(self._held)
        settled = self._held[: len(self._held) - keep]
        self._held = self._held[len(settled) :]
        return settled, []

    def end(self) -> Found:
        """The calls in what was held back, and all other text."""
        content = ""
        calls: list[Call] = []
        for i, part in enumerate(self._held.split(OPEN)):
            inside, _, after = part.partition(CLOSE)
            call = _parsed(inside, len(calls)) if i else None
            if call is None:
                content += (OPEN if i else "") + part
                continue
            calls.append(call)
            content += after
        return content.strip() if calls else content, calls[: self._most]


class EngineCalls:
    """The model may call, in a form that a parser of its engine knows."""

    finish = "tool_calls"

    def __init__(self, parser: ToolParser, most: int | None = None) -> None:
        self._parser = parser
        self._most = most

    def feed(self, content: str) -> Found:
        """What the parser makes of it."""
        return self._found(self._parser.feed(content) if content else [])

    def end(self) -> Found:
        """What the parser held back."""
        return self._found(self._parser.finish())

    def _found(self, deltas: Sequence[Mapping[str, Any]]) -> Found:
        content = "".join(delta.get("content") or "" for delta in deltas)
        calls = [dict(call) for delta in deltas for call in delta.get("tool_calls", ())]
        return content, [c for c in calls if self._most is None or c["index"] < self._most]


def _open_end(text: str) -> int:
    """Length of the longest end of `text` that may begin a call."""
    sizes = range(min(len(OPEN) - 1, len(text)), 0, -1)
    return next((size for size in sizes if OPEN.startswith(text[-size:])), 0)


def _parsed(text: str, index: int) -> Call | None:
    try:
        called = json.loads(text)
        return _call(index, called["name"], json.dumps(called.get("arguments", {})))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def reader(body: ChatBody, engine: Engine, parser: str | None = None) -> Reader | None:
    """What reads the calls of one choice; None if there can be none. `parser` is configured."""
    if not body.tools or body.tool_choice == "none":
        return None
    most = 1 if body.parallel_tool_calls is False else None
    if isinstance(body.tool_choice, NamedTool):
        return OneCall(body.tool_choice.function.name)
    if body.tool_choice == "required":
        return ListedCalls(most)
    if parser is None:
        return FreeCalls(most)
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools]
    return EngineCalls(engine.tool_parser(parser, tools), most)


def grammar(body: ChatBody) -> tuple[str, Structured] | None:
    """The grammar that forces a call, with the path of its field. Raises `RequestError`."""
    choice = body.tool_choice
    if choice is None or choice in ("none", "auto"):
        return None
    tools = body.tools or ()
    if not tools:
        raise RequestError("tool_choice needs tools", "tool_choice", "invalid_value")
    if isinstance(choice, NamedTool):
        return "tool_choice", Structured(StructuredKind.JSON_SCHEMA, _named(tools, choice))
    schema: dict[str, Any] = {
        "type": "array", "minItems": 1, "items": {"anyOf": [_item(tool) for tool in tools]},
    }  # fmt: skip
    if body.parallel_tool_calls is False:
        schema["maxItems"] = 1
    return "tool_choice", Structured(StructuredKind.JSON_SCHEMA, schema)


def _named(tools: Sequence[Tool], choice: NamedTool) -> dict[str, Any]:
    name = choice.function.name
    for tool in tools:
        if tool.function.name == name:
            return _parameters(tool)
    message = f"tool_choice: {name[:64]!r} is not among the tools"
    raise RequestError(message, "tool_choice.function.name", "invalid_value")


def _parameters(tool: Tool) -> dict[str, Any]:
    return tool.function.parameters or {"type": "object", "properties": {}}


def _item(tool: Tool) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"enum": [tool.function.name]}, "parameters": _parameters(tool)},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }
