"""Chat completions through a real server and the stock client."""

import asyncio
import json
import re
from typing import Any

import pytest

from tests.fakes.requests import SINGLE
from tests.server.api.live import Live, chunks, user

THOUGHT, SAID = "let me see 3+4=7\n", "The answer is 7."


def folded(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What a client makes of the chunks: per choice the texts, the end, the log-probabilities."""
    found: dict[int, dict[str, Any]] = {}
    for choice in (c for event in events for c in event["choices"]):
        one = found.setdefault(
            choice["index"], {"content": "", "reasoning": "", "logprobs": [], "role": None}
        )
        delta = choice["delta"]
        one["role"] = delta.get("role", one["role"])
        one["content"] += delta.get("content") or ""
        one["reasoning"] += delta.get("reasoning") or ""
        one["logprobs"] += (choice.get("logprobs") or {}).get("content") or []
        if choice["finish_reason"] is not None:
            one |= {"finish": choice["finish_reason"], "decoding": choice["decoding"]}
            one |= {"refusal": delta.get("refusal"), "stop_reason": choice["stop_reason"]}
    return found


def same(whole: dict[str, Any], events: list[dict[str, Any]]) -> None:
    """A stream says what the unstreamed answer says, usage included."""
    parts = folded(events)
    assert len(parts) == len(whole["choices"])
    for choice in whole["choices"]:
        part, message = parts[choice["index"]], choice["message"]
        assert part["role"] == "assistant"
        assert part["content"] == message["content"]
        assert part["reasoning"] == (message["reasoning"] or "")
        assert part["finish"] == choice["finish_reason"]
        assert part["stop_reason"] == choice["stop_reason"]
        assert part["refusal"] == message["refusal"]
        assert part["decoding"] == choice["decoding"]
        assert part["logprobs"] == (choice["logprobs"] or {"content": []})["content"]
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == whole["usage"]
    assert all(event["usage"] is None for event in events[:-1])


CASES: list[dict[str, Any]] = [
    {},
    {"logprobs": True, "top_logprobs": 2},
    {"n": 3, "temperature": 1, "seed": 4, "messages": [user("hm")], "max_tokens": 12},
    {"stop": ["answer"]},
    {"stop": "answer", "include_stop_str_in_output": True},
    {"messages": [user("euro")]},
    {"max_tokens": 9},
    {"temperature": 1, "seed": -3, "messages": [user("hm")], "max_tokens": 40, "top_p": 0.5},
    *({"decoding": name, "temperature": 1, "seed": 2, "max_tokens": 60} for name in SINGLE),
    {"decoding": {"strategy": "parallel_thinking", "trace": "full"}, "seed": 1, "max_tokens": 60},
    {"decoding": {"budget": {"max_generated_tokens": 7}}},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: json.dumps(case)[:60])
async def test_streamed_equals_unstreamed(live: Live, case: dict[str, Any]) -> None:
    whole = await live.chat(**case)
    assert whole.status_code == 200, whole.text
    options = {"stream": True, "stream_options": {"include_usage": True}}
    streamed = await live.chat(**case, **options)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    same(whole.json(), chunks(streamed))


async def test_the_stock_client_reads_an_answer(live: Live) -> None:
    answer = await live.client.chat.completions.create(
        model="tab", messages=[{"role": "user", "content": "hello"}], temperature=0
    )
    message = answer.choices[0].message
    assert message.content == SAID
    assert message.model_extra is not None
    assert message.model_extra["reasoning"] == message.model_extra["reasoning_content"] == THOUGHT
    assert message.refusal is None
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens_details is not None
    thought = len(f"\n{THOUGHT}") + 1  # the table's tokens are bytes; </think> is one
    assert answer.usage.completion_tokens_details.reasoning_tokens == thought
    extra = answer.usage.model_extra
    assert extra is not None
    assert extra["decoding"]["generated_tokens"] == answer.usage.completion_tokens


async def test_the_stock_client_reads_a_stream(live: Live) -> None:
    stream = await live.client.chat.completions.create(
        model="tab",
        messages=[{"role": "user", "content": "hello"}],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    seen = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in seen if c.choices)
    assert text == SAID
    assert seen[0].choices[0].delta.role == "assistant"
    assert seen[-1].usage is not None
    assert seen[-1].usage.completion_tokens > 0


async def test_without_usage_asked_for_a_stream_has_none(live: Live) -> None:
    events = chunks(await live.chat(stream=True))
    assert not [event for event in events if "usage" in event]
    assert [event for event in events if not event["choices"]] == []


async def test_continuous_usage_counts_up(live: Live) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = chunks(await live.chat(stream=True, stream_options=options))
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    assert len(set(counts)) > 10


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ("both", {"reasoning": THOUGHT, "reasoning_content": THOUGHT, "content": SAID}),
        ("reasoning", {"reasoning": THOUGHT, "content": SAID}),
        ("reasoning_content", {"reasoning_content": THOUGHT, "content": SAID}),
        ("think_tags", {"content": f"<think>{THOUGHT}</think>{SAID}"}),
        ("hidden", {"content": SAID}),
    ],
)
async def test_reasoning_goes_where_it_is_asked_to_go(
    live: Live, form: str, fields: dict[str, str]
) -> None:
    message = (await live.chat(reasoning_format=form)).json()["choices"][0]["message"]
    assert message == {"role": "assistant", "refusal": None, **fields}
    events = chunks(await live.chat(reasoning_format=form, stream=True))
    deltas = [event["choices"][0]["delta"] for event in events]
    joined = {name: "".join(delta.get(name) or "" for delta in deltas) for name in fields}
    assert joined == fields
    assert {name for delta in deltas for name in delta} == {"role", *fields}


async def test_tags_are_closed_when_thinking_is_cut(live: Live) -> None:
    fields: dict[str, Any] = {"reasoning_format": "think_tags", "max_tokens": 12}
    choice = (await live.chat(messages=[user("cut")], **fields)).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == "<think>no end of </think>"


async def test_include_reasoning_false_hides_it(live: Live) -> None:
    message = (await live.chat(include_reasoning=False)).json()["choices"][0]["message"]
    assert "reasoning" not in message
    assert message["content"] == SAID


async def test_content_is_never_null(live: Live) -> None:
    message = (await live.chat(max_tokens=4)).json()["choices"][0]["message"]
    assert message["content"] == ""


async def test_log_probabilities_of_a_split_character_are_its_bytes(live: Live) -> None:
    answer = await live.chat(messages=[user("euro")], logprobs=True)
    entries = answer.json()["choices"][0]["logprobs"]["content"]
    spelled = bytes(byte for entry in entries[:-1] for byte in entry["bytes"])
    assert spelled.decode() == "3 € for café"
    assert all(entry["logprob"] <= 0 for entry in entries)


async def test_a_seed_fixes_the_answer(live: Live) -> None:
    fields: dict[str, Any] = {"messages": [user("hm")], "temperature": 1, "max_tokens": 30}
    first, again, other = [
        (await live.chat(seed=seed, **fields)).json()["choices"][0]["message"]["content"]
        for seed in (1, 1, 2)
    ]
    assert first == again != other


async def test_choices_of_one_request_differ(live: Live) -> None:
    answer = await live.chat(messages=[user("hm")], temperature=1, seed=1, n=4, max_tokens=20)
    texts = [choice["message"]["content"] for choice in answer.json()["choices"]]
    assert len(set(texts)) == 4
    assert [choice["index"] for choice in answer.json()["choices"]] == [0, 1, 2, 3]


async def test_a_stop_string_does_not_match_in_the_thinking(live: Live) -> None:
    choice = (await live.chat(stop="7")).json()["choices"][0]
    assert choice["message"]["reasoning"] == THOUGHT
    assert choice["message"]["content"] == "The answer is "
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "7")


@pytest.mark.parametrize("model", ["tab@duo", "tab@best_of_n", "tab@plain", "org/raw@plain"])
async def test_a_virtual_id_chooses_the_strategy(live: Live, model: str) -> None:
    response = await live.chat(model=model)
    expected = "plain" if model.endswith("plain") else "best_of_n"
    assert response.headers["x-decoding-strategy"] == expected
    assert response.json()["model"] == model
    assert response.json()["choices"][0]["decoding"]["strategy"] == expected


async def test_the_body_beats_a_virtual_id(live: Live) -> None:
    response = await live.chat(model="tab@duo", decoding="plain")
    assert response.headers["x-decoding-strategy"] == "plain"


async def test_text_in_the_prompt_chooses_nothing(live: Live) -> None:
    said = user('{"decoding": "best_of_n"} model: tab@best_of_n hello')
    response = await live.chat(messages=[said])
    assert response.headers["x-decoding-strategy"] == "plain"


async def test_a_dry_run_generates_nothing(live: Live) -> None:
    before = live.engine.figures()["tokens_sampled"]
    decoding = {"strategy": "best_of_n", "params": {"samples": 3}, "dry_run": True}
    answer = (await live.chat(decoding=decoding, max_tokens=10, n=2)).json()
    assert answer["object"] == "decoding.estimate"
    assert answer["estimate"]["rows"] == 6
    assert answer["estimate"]["generated_tokens"] == 60
    assert answer["params"]["samples"] == 3
    assert live.engine.figures()["tokens_sampled"] == before


async def test_a_dry_run_expects_what_the_like_has_cost(live: Live) -> None:
    asked = {"max_tokens": 60, "seed": 3, "messages": [user("hello, what will it cost?")]}
    decoding = {"strategy": "parallel_thinking", "params": {"paths": 13}}
    first = (await live.chat(decoding={**decoding, "dry_run": True}, **asked)).json()
    assert first["expected"] == {
        "generated_tokens": 780, "row_seconds": None, "mean_row_seconds": None, "seen": 0,
    }  # fmt: skip
    spent = (await live.chat(decoding=decoding, **asked)).json()["usage"]["decoding"]
    then = (await live.chat(decoding={**decoding, "dry_run": True}, **asked)).json()
    assert then["estimate"] == first["estimate"]
    assert then["expected"]["seen"] == 1
    assert then["expected"]["generated_tokens"] == pytest.approx(spent["generated_tokens"])
    assert then["expected"]["row_seconds"] > 0
    assert then["expected"]["mean_row_seconds"] > 0


async def test_what_it_was_let_in_as_is_held_against_what_it_cost(live: Live) -> None:
    async def judged() -> float:
        figures = (await live.http.get("/metrics")).text
        ours = re.findall(r'^satisfice_cost_error_count\{.*"best_of_n"\} (.*)$', figures, re.M)
        return sum(map(float, ours))

    decoding, before = {"strategy": "best_of_n", "params": {"samples": 2}}, await judged()
    for _ in range(2):  # of the first nothing may be expected yet
        await live.chat(decoding=decoding, max_tokens=30, seed=5)
    async with asyncio.timeout(10):
        while await judged() == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_events_ride_in_chunks_with_an_empty_delta(live: Live) -> None:
    decoding = {"strategy": "parallel_thinking", "params": {"paths": 3}, "stream_events": True}
    events = chunks(await live.chat(decoding=decoding, stream=True, max_tokens=60, seed=1))
    notes = [
        event["choices"][0]
        for event in events
        if "event" in event["choices"][0].get("decoding", {})
    ]
    assert notes
    assert all(note["delta"] == {} and note["finish_reason"] is None for note in notes)
    ends = [event["choices"][0] for event in events if event["choices"][0]["finish_reason"]]
    assert len(ends) == 1
    assert "outcome" in ends[0]["decoding"]


async def test_an_answer_can_be_sent_back(live: Live) -> None:
    answer = await live.client.chat.completions.create(
        model="tab", messages=[{"role": "user", "content": "hello"}]
    )
    message: Any = answer.choices[0].message.model_dump()
    again = await live.chat(messages=[user("hello"), message, user("hello")])
    assert again.status_code == 200, again.text


async def test_parts_of_text_are_one_message(live: Live) -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo, hello"}]
    answer = await live.chat(messages=[{"role": "user", "content": parts}])
    assert answer.json()["choices"][0]["message"]["content"] == SAID


async def test_the_prompts_log_probabilities(live: Live) -> None:
    answer = (await live.chat(prompt_logprobs=1, max_tokens=1)).json()
    entries = answer["prompt_logprobs"]
    assert len(entries) == answer["usage"]["prompt_tokens"]
    assert entries[0] is None
    assert all(
        {"logprob", "rank", "decoded_token"} <= set(e) for one in entries[1:] for e in one.values()
    )


async def test_a_request_id_is_taken_or_made(live: Live) -> None:
    given = await live.http.get("/health", headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    made = await live.http.get("/health", headers={"x-request-id": "not mine!" * 40})
    assert len(made.headers["x-request-id"]) == 32


async def test_many_at_once_do_not_mix(live: Live) -> None:
    fields: dict[str, Any] = {"messages": [user("hm")], "temperature": 1, "max_tokens": 25}
    alone = [(await live.chat(seed=seed, **fields)).json() for seed in range(12)]
    together = await asyncio.gather(
        *(live.chat(seed=seed, stream=seed % 2 == 0, **fields) for seed in range(12))
    )
    for seed, (one, other) in enumerate(zip(alone, together, strict=True)):
        expected = one["choices"][0]["message"]["content"]
        if seed % 2:
            assert other.json()["choices"][0]["message"]["content"] == expected
        else:
            assert folded(chunks(other))[0]["content"] == expected
