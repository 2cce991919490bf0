"""Tool calls in a model's own form, found in its text by the parsers that vLLM has for it.

Text in, the API's deltas out as plain mappings: `{"content": ...}` or `{"tool_calls": [...]}`. It
knows no engine and no HTTP, and none of vLLM's types leave it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.tool_parsers import ToolParserManager

from engines.tokenizer import Tokenizer

Delta = dict[str, Any]

STEP = 4  # characters: most parsers were written for a token at a time, and miss what comes at once


def tool_parser(
    name: str, tokenizer: Tokenizer, tools: Sequence[Mapping[str, Any]] = ()
) -> "ToolParser":
    """A parser for one answer. `tools` are the request's, as the API spells them.

    Raises ValueError for an unknown name, and for a tokenizer that lacks the form's tokens.
    """
    known = ToolParserManager.list_registered()
    if name not in known:
        raise ValueError(f"{name!r} is no tool parser; known: {', '.join(known)}")
    request = ChatCompletionRequest.model_validate(
        {"messages": [], "tools": [dict(tool) for tool in tools] or None}
    )
    try:
        parser = ToolParserManager.get_tool_parser(name)(tokenizer.hf, request.tools)
    except (RuntimeError, ValueError, KeyError) as fault:
        raise ValueError(f"tool parser {name!r} does not fit the tokenizer: {fault}") from fault
    return ToolParser(parser, request, tokenizer)


class ToolParser:
    """Reads one answer as it grows; `finish` gives what was held back."""

    def __init__(self, parser: Any, request: ChatCompletionRequest, tokenizer: Tokenizer) -> None:
        """`parser` is vLLM's, fresh."""
        self._parser, self._request, self._tokenizer = parser, request, tokenizer
        self._markers = _Markers(tokenizer)
        self._held = ""  # may yet become a marker
        self._text = ""
        self._ids: list[int] = []
        self._content = ""
        self._arguments: list[str] = []

    def feed(self, text: str) -> list[Delta]:
        """The deltas that `text` settles."""
        ready = self._held + text
        keep = self._markers.begun(ready)
        self._held = ready[len(ready) - keep :]
        parts = self._markers.apart(ready[: len(ready) - keep])
        return _merged([delta for part in parts for delta in self._read(part)])

    def finish(self) -> list[Delta]:
        """What was held back, now that nothing more comes."""
        held, self._held = self._held, ""
        deltas = self._read(held) if held else []
        if (flush := getattr(self._parser, "finish_streaming", None)) is not None:
            deltas += self._plain(flush())
        if self._arguments:
            # The parser knows how the last call ends, though the text may not.
            rest = self._parser.get_remaining_unstreamed_args()
            index = len(self._arguments) - 1
            return [*deltas, *self._calls([{"index": index, "function": {"arguments": rest}}])]
        # A form that was begun and never became a call is content after all.
        rest = self._text[len(self._content) :] if self._text.startswith(self._content) else ""
        return _merged([*deltas, {"content": rest}] if rest else deltas)

    def _read(self, text: str) -> list[Delta]:
        before, ids_before = self._text, list(self._ids)
        ids = self._tokenizer.encode(text, special=False)
        self._text += text
        self._ids += ids
        found = self._parser.extract_tool_calls_streaming(
            before, self._text, text, ids_before, self._ids, ids, self._request
        )
        return self._plain(found)

    def _plain(self, found: Any) -> list[Delta]:
        """vLLM's delta as mappings."""
        if found is None:
            return []
        deltas = []
        if found.content:
            self._content += found.content
            deltas.append({"content": found.content})
        calls = [call.model_dump(exclude_none=True) for call in found.tool_calls or ()]
        return [*deltas, *self._calls(calls)]

    def _calls(self, calls: Sequence[dict[str, Any]]) -> list[Delta]:
        """Calls in the API's streamed form: each first delta has its id, name and arguments."""
        said = []
        for call in calls:
            function = {"arguments": "", **call.get("function", {})}
            if call["index"] == len(self._arguments):
                self._arguments.append("")
            elif not function["arguments"]:
                continue
            self._arguments[call["index"]] += function["arguments"]
            said.append({**call, "function": function})
        return [{"tool_calls": said}] if said else []


def _merged(deltas: Sequence[Delta]) -> list[Delta]:
    """The same with neighbouring content in one delta."""
    merged: list[Delta] = []
    for delta in deltas:
        if merged and "content" in delta and "content" in merged[-1]:
            merged[-1] = {"content": merged[-1]["content"] + delta["content"]}
        else:
            merged.append(delta)
    return merged


class _Markers:
    """The tokenizer's added tokens: some parsers look for their ids, so they must come whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        added = sorted(tokenizer.hf.get_added_vocab(), key=len, reverse=True)
        self._starts = frozenset(text[:size] for text in added for size in range(1, len(text)))
        self._longest = max((len(text) for text in added), default=0)
        self._split = re.compile("(" + "|".join(map(re.escape, added)) + ")") if added else None

    def begun(self, text: str) -> int:
        """Length of the longest end of `text` that may begin a marker."""
        sizes = range(min(self._longest - 1, len(text)), 0, -1)
        return next((size for size in sizes if text[-size:] in self._starts), 0)

    def apart(self, text: str) -> list[str]:
        """`text` in small steps, with every marker whole and alone."""
        parts = self._split.split(text) if self._split else [text]
        return [
            part[at : at + size]
            for i, part in enumerate(parts)
            for size in (len(part) if i % 2 else STEP,)
            for at in range(0, len(part), size)
        ]
