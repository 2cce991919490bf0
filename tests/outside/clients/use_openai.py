"""The stock `openai` client against the server in $SERVER: what its users rely on."""

import asyncio
import json
import os
from typing import Any

import openai

URL = os.environ["SERVER"] + "/v1"
MODEL = "satisfice-mini"
QUESTION = [{"role": "user", "content": "What is 17 * 4 + 12 * 4?"}]
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "parallel_thinking": {"paths": 4},
    "extended_thinking": {"waits": 1},
    "best_of_n": {"samples": 3, "monitor": {"kind": "exact", "answer": "116"}},
}
client = openai.OpenAI(base_url=URL, api_key="none", max_retries=0)


def body(strategy: str) -> dict[str, Any]:
    return {"decoding": {"strategy": strategy, "params": CALLS[strategy]}}


def whole(strategy: str) -> Any:
    return client.chat.completions.create(
        model=MODEL, messages=QUESTION, seed=7, max_tokens=400, extra_body=body(strategy)
    )


def streamed(strategy: str) -> tuple[str, str, Any, Any]:
    parts, reasoning, usage, last = [], [], None, None
    with client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        seed=7,
        max_tokens=400,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=body(strategy),
    ) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                parts.append(choice.delta.content or "")
                reasoning.append(getattr(choice.delta, "reasoning_content", None) or "")
                last = choice if choice.finish_reason else last
    return "".join(parts), "".join(reasoning), usage, last


def check_strategy(strategy: str) -> None:
    answer = whole(strategy)
    message = answer.choices[0].message
    content, reasoning, usage, last = streamed(strategy)
    assert content == message.content, (content, message.content)
    assert reasoning == message.reasoning_content == message.reasoning
    if strategy == "parallel_thinking":  # what cancelled paths had cost depends on timing
        assert usage.completion_tokens == answer.usage.completion_tokens
    else:
        assert usage.to_dict() == answer.usage.to_dict(), (usage, answer.usage)
    assert last.finish_reason == answer.choices[0].finish_reason
    assert last.decoding["strategy"] == strategy
    print(strategy, repr(message.content), answer.usage.decoding)


def check_errors() -> None:
    for fields, param in (
        ({"extra_body": {"decoding": {"strategy": "nonsense"}}}, "decoding.strategy"),
        ({"extra_body": {"decoding": {"strategy": "parallel_thinking",
                                      "params": {"paths": 0}}}}, "decoding.params.paths"),
        ({"temperature": 9}, "temperature"),
        ({"extra_body": {"no_such_field": 1}}, "no_such_field"),
    ):  # fmt: skip
        try:
            client.chat.completions.create(model=MODEL, messages=QUESTION, **fields)
        except openai.BadRequestError as fault:
            assert fault.param == param, (fault.param, param)
            assert fault.type and fault.request_id
        else:
            raise AssertionError(f"{param} was accepted")
    try:
        client.chat.completions.create(model="nobody", messages=QUESTION)
    except openai.NotFoundError as fault:
        assert fault.code == "model_not_found"


def check_formats() -> None:
    total = {"type": "integer", "minimum": 0, "maximum": 999}
    schema = {
        "type": "object",
        "properties": {"sum": total},
        "required": ["sum"],
        "additionalProperties": False,
    }
    shaped = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=100,
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
    )  # fmt: skip
    assert isinstance(json.loads(shaped.choices[0].message.content)["sum"], int)
    tool = {"type": "function", "function": {"name": "add", "parameters": schema}}
    called = client.chat.completions.create(
        model=MODEL, messages=QUESTION, tools=[tool], max_tokens=200,
        tool_choice={"type": "function", "function": {"name": "add"}},
    )  # fmt: skip
    (call,) = called.choices[0].message.tool_calls
    assert call.function.name == "add"
    assert "sum" in json.loads(call.function.arguments)


def check_rest() -> None:
    ids = [model.id for model in client.models.list()]
    assert MODEL in ids and f"{MODEL}@parallel_thinking" in ids
    assert client.models.retrieve(f"{MODEL}@plain").id == f"{MODEL}@plain"
    text = client.completions.create(model=MODEL, prompt="17*4=", max_tokens=5, logprobs=2, n=2)
    assert len(text.choices) == 2 and text.choices[0].logprobs.tokens
    virtual = client.chat.completions.create(model=f"{MODEL}@best_of_n", messages=QUESTION)
    assert virtual.choices[0].decoding["strategy"] == "best_of_n"
    tried = client.chat.completions.create(
        model=MODEL, messages=QUESTION, logprobs=True, top_logprobs=2, max_tokens=10
    )
    assert len(tried.choices[0].logprobs.content) == tried.usage.completion_tokens


async def check_async() -> None:
    many = openai.AsyncOpenAI(base_url=URL, api_key="none")
    # Greedy: a sample may think until its context is full and then has no content.
    calls = [
        many.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
        for _ in range(8)
    ]
    contents = {answer.choices[0].message.content for answer in await asyncio.gather(*calls)}
    assert contents == {"The answer is 116."}


for name in CALLS:
    check_strategy(name)
check_errors()
check_formats()
check_rest()
asyncio.run(check_async())
print("ok")
