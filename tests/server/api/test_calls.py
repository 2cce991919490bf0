"""Tool calls: how they are found in content, forced by grammar, and streamed."""

import json
from typing import Any

import pytest

from decoders.core.base import RequestError
from server.bodies import ChatBody
from server.calls import EngineCalls, FreeCalls, ListedCalls, OneCall, Reader, grammar, reader
from tests.server.api.live import Live, chunks, engine, fault, user

ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "required": ["a"]}},
}
SUB = {"type": "function", "function": {"name": "sub"}}
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def body(**fields: Any) -> ChatBody:
    base = {"model": "tab", "messages": [user("x")], "tools": [ADD, SUB]}
    return ChatBody.model_validate({**base, **fields})


def read(one: Reader, text: str, size: int) -> tuple[str, list[dict[str, Any]]]:
    """Content and merged calls of a text fed in pieces of `size`."""
    content, calls = "", []
    parts = [text[i : i + size] for i in range(0, len(text), size)]
    for said, called in [*(one.feed(part) for part in parts), one.end()]:
        content += said
        for call in called:
            if "id" in call:
                calls.append({**call["function"]})
            else:
                calls[call["index"]]["arguments"] += call["function"]["arguments"]
    return content, calls


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "content", "names"),
    [
        ("no call at all", "no call at all", []),
        (CALL, "", ["add"]),
        (f"Well: {CALL}", "Well: ", ["add"]),
        (CALL + CALL.replace("add", "sub"), "", ["add", "sub"]),
        (CALL.replace("</tool_call>", ""), "", ["add"]),
        ("a < b <tool", "a < b <tool", []),
        ("<tool_call>not json</tool_call>", "<tool_call>not json</tool_call>", []),
        ("<tool_call>[1]</tool_call>", "<tool_call>[1]</tool_call>", []),
    ],
)
def test_free_calls(size: int, text: str, content: str, names: list[str]) -> None:
    said, calls = read(FreeCalls(), text, size)
    assert said == content
    assert [call["name"] for call in calls] == names
    assert all(json.loads(call["arguments"]) == {"a": 1} for call in calls)


def test_one_call_at_a_time_if_asked_for() -> None:
    assert len(read(FreeCalls(1), CALL * 3, 5)[1]) == 1


@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_one_call(size: int) -> None:
    content, calls = read(OneCall("add"), '{"a": 1}', size)
    assert (content, calls) == ("", [{"name": "add", "arguments": '{"a": 1}'}])


def test_listed_calls() -> None:
    text = '[{"name": "add", "parameters": {"a": 1}}, {"name": "sub", "parameters": {}}]'
    content, calls = read(ListedCalls(), text, 6)
    assert content == ""
    assert [call["name"] for call in calls] == ["add", "sub"]
    assert read(ListedCalls(), text[:20], 6) == (text[:20], [])


def test_the_grammar_of_a_forced_call() -> None:
    assert grammar(body()) is None
    assert grammar(body(tool_choice="auto")) is None
    found = grammar(body(tool_choice="required", parallel_tool_calls=False))
    assert found is not None
    assert found[1].value["maxItems"] == 1
    named = [item["properties"]["name"]["enum"] for item in found[1].value["items"]["anyOf"]]
    assert named == [["add"], ["sub"]]
    one = {"type": "function", "function": {"name": "add"}}
    forced = grammar(body(tool_choice=one))
    assert forced is not None
    assert forced[1].value == ADD["function"]["parameters"]  # type: ignore[index]
    with pytest.raises(RequestError):
        grammar(body(tool_choice={"type": "function", "function": {"name": "none"}}))


class Spelled:
    """A parser that takes every line as a call of the function it names."""

    def __init__(self) -> None:
        self.held = ""

    def feed(self, text: str) -> list[dict[str, Any]]:
        self.held += text
        return []

    def finish(self) -> list[dict[str, Any]]:
        said, *called = self.held.split("\n")
        calls = [
            {"index": i, "id": f"{i}", "type": "function", "function": {"name": n, "arguments": ""}}
            for i, n in enumerate(called)
        ]
        return [{"content": said}, {"tool_calls": calls}]


@pytest.mark.parametrize(("most", "names"), [(None, ["add", "sub"]), (1, ["add"])])
def test_a_parser_of_the_engine(most: int | None, names: list[str]) -> None:
    content, calls = read(EngineCalls(Spelled(), most), "Well\nadd\nsub", 3)
    assert content == "Well"
    assert [call["name"] for call in calls] == names


def test_no_tools_no_reader() -> None:
    assert reader(body(tools=None), engine()) is None
    assert reader(body(tool_choice="none"), engine()) is None


@pytest.mark.parametrize("prompt", ["phone", "dial"])
async def test_calls_streamed_and_not(live: Live, prompt: str) -> None:
    fields: dict[str, Any] = {"model": "org/raw", "messages": [user(prompt)], "tools": [ADD]}
    choice = (await live.chat(**fields)).json()["choices"][0]
    calls = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == ("Sure. " if prompt == "phone" else "")
    assert len(calls) == (1 if prompt == "phone" else 2)
    assert json.loads(calls[0]["function"]["arguments"]) == {"a": 3, "b": 4}
    events = chunks(await live.chat(stream=True, **fields))
    deltas = [event["choices"][0]["delta"] for event in events]
    streamed = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert [call["function"] for call in streamed] == [call["function"] for call in calls]
    assert "".join(d.get("content") or "" for d in deltas) == choice["message"]["content"]
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_tools_can_be_forbidden(live: Live) -> None:
    fields: dict[str, Any] = {"model": "org/raw", "tools": [ADD], "tool_choice": "none"}
    message = (await live.chat(messages=[user("phone")], **fields)).json()["choices"][0]["message"]
    assert "tool_calls" not in message
    assert "<tool_call>" in message["content"]


async def test_a_forced_call_needs_an_engine_with_grammars(live: Live) -> None:
    response = await live.chat(tools=[ADD], tool_choice="required")
    assert fault(response, 400)["param"] == "tool_choice"


async def test_a_strategy_without_tools_says_so(live: Live) -> None:
    response = await live.chat(tools=[ADD], decoding="parallel_thinking")
    assert fault(response, 400)["param"] == "tools"


async def test_a_conversation_with_calls_is_taken(live: Live) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{"}}
    messages = [
        user("phone"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "7"},
    ]
    assert (await live.chat(messages=messages, max_tokens=2)).status_code == 200
