"""Reading what a stream carries beyond the standard fields."""

from typing import Any

from openai.types.chat import ChatCompletionChunk

from clients.wire import gather, parts, shortly

USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 5,
    "total_tokens": 8,
    "decoding": {"generated_tokens": 40, "engine_requests": 8},
}


def chunk(usage: Any = None, **choice: Any) -> ChatCompletionChunk:
    whole = {"index": 0, "delta": {}, "finish_reason": None, **choice}
    return ChatCompletionChunk.model_validate(
        {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "m",
            "choices": [whole] if choice else [],
            "usage": usage,
        }
    )


STREAM = [
    chunk(delta={"role": "assistant", "content": ""}),
    chunk(decoding={"event": "path", "path": 3, "answer": "664"}),
    chunk(delta={"reasoning": "2+2", "reasoning_content": "2+2"}),
    chunk(delta={"reasoning_content": "=4"}),
    chunk(delta={"content": "4"}),
    chunk(finish_reason="stop", decoding={"strategy": "parallel_thinking", "outcome": "complete"}),
    chunk(usage=USAGE),
]


def test_parts_come_in_order() -> None:
    kinds = [part.kind for part in parts(STREAM)]
    assert kinds == ["event", "reasoning", "reasoning", "content", "end", "usage"]


def test_a_stream_read_to_its_end() -> None:
    told = gather(STREAM)
    assert (told.reasoning, told.content, told.finish) == ("2+2=4", "4", "stop")
    assert told.decoding["outcome"] == "complete"
    assert told.events == [{"event": "path", "path": 3, "answer": "664"}]
    assert told.spent == {"generated_tokens": 40, "engine_requests": 8}
    assert told.usage["total_tokens"] == 8


def test_a_stream_without_extras_reads_as_well() -> None:
    told = gather([chunk(delta={"content": "hi"}), chunk(finish_reason="stop")])
    assert (told.content, told.finish, told.spent) == ("hi", "stop", {})


def test_only_what_is_small_is_shown() -> None:
    fields = {
        "event": "vote",
        "winner": "664",
        "share": 0.123456,
        "votes": {"a": 1},
        "reason": None,
    }
    assert shortly(fields) == "winner 664, share 0.123"
    assert shortly({"strategy": "plain", "branches": 0}, ["strategy"]) == "branches 0"
