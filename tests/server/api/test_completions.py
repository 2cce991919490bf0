"""Text completions: prompts in every form, echo, log-probabilities, streams."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from engines.base import TokenLogprob
from engines.table import TableEngine, byte_tokenizer
from tests.fakes.requests import SINGLE
from tests.server.api.live import Live, chunks, engine, fault, running, settings

IDS = byte_tokenizer()
TAKEN = [name for name in SINGLE if name != "extended_thinking"]  # that one needs a chat


class Reader(TableEngine):
    """Counts how often a prompt was read for its log-probabilities."""

    reads = 0

    async def prompt_logprobs(self, prompt: Sequence[int], top: int) -> list[TokenLogprob | None]:
        """As the table says."""
        self.reads += 1
        return await super().prompt_logprobs(prompt, top)


def folded(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Per choice the text, the end and the joined log-probabilities."""
    found: dict[int, dict[str, Any]] = {}
    for choice in (c for event in events for c in event["choices"]):
        one = found.setdefault(choice["index"], {"text": "", "logprobs": None})
        one["text"] += choice["text"]
        for name, values in (choice["logprobs"] or {}).items():
            one["logprobs"] = one["logprobs"] or {}
            one["logprobs"].setdefault(name, []).extend(values)
        if choice["finish_reason"] is not None:
            one |= {name: choice[name] for name in ("finish_reason", "stop_reason", "decoding")}
    return found


CASES: list[dict[str, Any]] = [
    {},
    {"logprobs": 2},
    {"echo": True},
    {"echo": True, "logprobs": 1, "max_tokens": 3},
    {"echo": True, "max_tokens": 0},
    {"prompt": ["once", "twice"], "n": 2, "temperature": 1, "seed": 3, "max_tokens": 5},
    {"prompt": ["once", "twice"], "echo": True, "logprobs": 0, "max_tokens": 0},
    {"stop": ["e", "a"], "temperature": 1, "seed": 1, "max_tokens": 100},
    {"prompt": "hello", "max_tokens": 60},
    *({"decoding": name, "temperature": 1, "seed": 1, "prompt": "hello"} for name in TAKEN),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: json.dumps(case)[:60])
async def test_streamed_equals_unstreamed(live: Live, case: dict[str, Any]) -> None:
    whole = (await live.text(**case)).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    events = chunks(await live.text(**case, **options))
    parts = folded(events)
    assert len(parts) == len(whole["choices"])
    for choice in whole["choices"]:
        index = choice.pop("index")
        assert parts[index] == choice
    assert events[-1]["usage"] == whole["usage"]


async def test_the_default_is_sixteen_tokens(live: Live) -> None:
    answer = (await live.text(ignore_eos=True)).json()
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("form", ["text", "ids", "texts", "lists"])
async def test_a_prompt_in_every_form_gives_the_same(live: Live, form: str) -> None:
    ids = IDS.encode("once")
    prompt = {"text": "once", "ids": ids, "texts": ["once"], "lists": [ids]}[form]
    answer = (await live.text(prompt=prompt)).json()
    assert answer["choices"][0]["text"] == (await live.text()).json()["choices"][0]["text"]
    assert answer["usage"]["prompt_tokens"] == len(ids)


async def test_several_prompts_answer_as_they_do_alone(live: Live) -> None:
    fields: dict[str, Any] = {"temperature": 1, "seed": 7, "n": 2, "max_tokens": 9}
    both = (await live.text(prompt=["once", "upon"], **fields)).json()
    alone = [(await live.text(prompt=one, **fields)).json() for one in ("once", "upon")]
    texts = [choice["text"] for answer in alone for choice in answer["choices"]]
    assert [choice["text"] for choice in both["choices"]] == texts
    assert both["usage"]["prompt_tokens"] == sum(a["usage"]["prompt_tokens"] for a in alone)


@pytest.mark.parametrize("max_tokens", [0, 1])
async def test_a_loglikelihood_is_that_of_the_engine(live: Live, max_tokens: int) -> None:
    """What evaluation harnesses send: batches of token ids, echoed with log-probabilities."""
    prompts = [IDS.encode("the cat sat"), IDS.encode("a dog")]
    answer = (
        await live.text(
            prompt=prompts, echo=True, logprobs=1, max_tokens=max_tokens, seed=1234, temperature=0
        )
    ).json()
    for prompt, choice in zip(prompts, answer["choices"], strict=True):
        found = choice["logprobs"]
        expected = await live.engine.score(prompt[:1], prompt[1:])
        lengths = {len(values) for values in found.values()}
        assert lengths == {len(prompt) + max_tokens}
        assert found["token_logprobs"][0] is None
        assert found["top_logprobs"][0] is None
        given = found["token_logprobs"][1 : len(prompt)]
        assert given == pytest.approx([one.logprob for one in expected])
        for value, top in zip(found["token_logprobs"][1:], found["top_logprobs"][1:], strict=True):
            assert value in top.values()
            assert len(top) <= 2
        assert "".join(found["tokens"]) == choice["text"]
        offsets = [0]
        for token in found["tokens"]:
            offsets.append(offsets[-1] + len(token))
        assert found["text_offset"] == offsets[:-1]


async def test_prompt_logprobs_stand_in_each_choice(live: Live) -> None:
    answer = (await live.text(prompt=["ab", "abc"], prompt_logprobs=2, max_tokens=1)).json()
    assert [len(choice["prompt_logprobs"]) for choice in answer["choices"]] == [2, 3]


READS: list[tuple[dict[str, Any], int, int]] = [
    ({"echo": True, "logprobs": 1, "max_tokens": 0}, 1, 0),
    ({"echo": True, "logprobs": 1, "max_tokens": 0, "n": 4, "temperature": 1}, 1, 0),
    ({"echo": True, "logprobs": 1, "max_tokens": 2, "prompt": ["ab", "abc"], "n": 2}, 2, 4),
    ({"echo": True, "logprobs": 3, "max_tokens": 1, "prompt_logprobs": 1}, 1, 1),
    ({"prompt_logprobs": 0, "max_tokens": 1, "n": 2}, 1, 2),
    ({"echo": True, "max_tokens": 0}, 0, 0),
]


@pytest.mark.parametrize(("fields", "reads", "answers"), READS, ids=str)
async def test_a_prompt_is_read_once_and_that_is_booked(
    fields: dict[str, Any], reads: int, answers: int
) -> None:
    table = Reader.__new__(Reader)
    table.__dict__.update(engine().__dict__)
    async with running(settings(), table) as live:
        body = {"seed": 1, "ignore_eos": True, **fields}
        most = (await live.text(decoding={"dry_run": True}, **body)).json()
        answer = (await live.text(**body)).json()
    assert table.reads == reads
    assert answer["usage"]["decoding"]["engine_requests"] == reads + answers
    assert most["estimate"]["engine_requests"] >= reads + answers
    width = fields.get("prompt_logprobs")
    for choice in answer["choices"]:
        listed = choice.get("prompt_logprobs", [])
        assert all(len(found) in (width, (width or 0) + 1) for found in listed if found)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_logprobs": 1},
        {"echo": True, "logprobs": 1, "max_tokens": 0},
        {"echo": True, "logprobs": 1},
    ],
    ids=str,
)
async def test_a_deadline_ends_the_reading_of_a_prompt(fields: dict[str, Any]) -> None:
    async with running(settings(), engine(token_seconds=20)) as live:
        decoding = {"budget": {"deadline_ms": 200}}
        answer = (await live.text(decoding=decoding, **fields)).json()
        assert live.engine.running == 0
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["decoding"]["outcome"] == "budget_exhausted"
    assert choice["decoding"]["reason"] == "deadline_ms"
    assert choice.get("prompt_logprobs") is None
    assert choice["text"] == ("once" if "echo" in fields else "")
    if "echo" in fields:
        assert choice["logprobs"]["token_logprobs"] == [None] * len(IDS.encode("once"))
    assert answer["usage"]["decoding"]["engine_requests"] == 1


async def test_prompts_share_one_budget_in_the_estimate_too(live: Live) -> None:
    budget = {"max_generated_tokens": 95}
    body = {"prompt": ["once"] * 10, "max_tokens": 100, "n": 2, "seed": 1, "ignore_eos": True}
    dry = (await live.text(decoding={"budget": budget, "dry_run": True}, **body)).json()
    assert (dry["estimate"]["rows"], dry["estimate"]["generated_tokens"]) == (20, 95)
    answer = (await live.text(decoding={"budget": budget}, **body)).json()
    assert answer["usage"]["decoding"]["generated_tokens"] == 95


async def test_tokens_by_number(live: Live) -> None:
    fields: dict[str, Any] = {"logprobs": 0, "max_tokens": 2, "return_tokens_as_token_ids": True}
    answer = (await live.text(**fields)).json()
    assert all(one.startswith("token_id:") for one in answer["choices"][0]["logprobs"]["tokens"])


async def test_the_stock_client_reads_both_forms(live: Live) -> None:
    whole = await live.client.completions.create(model="org/raw", prompt="once", seed=1, logprobs=1)
    stream = await live.client.completions.create(
        model="org/raw", prompt="once", seed=1, logprobs=1, stream=True
    )
    parts = [chunk async for chunk in stream]
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    assert whole.choices[0].logprobs is not None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True}, "echo"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"prompt": ["a", "b"]}, "prompt"),
    ],
)
async def test_what_only_plain_can_do(live: Live, fields: dict[str, Any], param: str) -> None:
    response = await live.text(decoding="parallel_thinking", **fields)
    assert fault(response, 400)["param"] == param
