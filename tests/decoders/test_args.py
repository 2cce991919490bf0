"""ARGS against its plain loop, and its draws against the stated distribution."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from decoders.core.base import DecodeRequest, RequestError, TraceLevel
from decoders.core.registry import find
from decoders.core.run import estimate
from engines.base import Capability, Sampling
from engines.drawing import log_softmax
from engines.table import TableEngine, spell
from tests.contracts.test_engine_agreement import SURE, goodness
from tests.decoders.slow_policies import Marks, World, args, mark, normal, parted
from tests.fakes import requests
from tests.fakes.requests import table, whole

GREEDY = Sampling(temperature=0.0, logprobs=2)


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[TableEngine]:
    made = table(script={})
    await made.start()
    yield made
    await made.stop()


def asked(engine: Any, params: dict[str, Any], **fields: Any) -> DecodeRequest:
    fields = {"sampling": GREEDY, "max_tokens": 14, "think": None, **fields}
    fields.setdefault("monitors", {"marks": Marks("marks")})
    return requests.request(engine, "args", params, **fields)


def world(engine: TableEngine, asked: DecodeRequest) -> World:
    eos = engine.tokenizer.eos_id or 0
    return World(
        lambda name, prefix: log_softmax(engine.logits(spell(prefix))),
        engine.tokenizer.decode, eos, asked.prompt,
    )  # fmt: skip


@pytest.mark.parametrize("weight", [0.5, 1.5, 8.0, -2.0])
async def test_it_says_what_the_plain_loop_says(engine: TableEngine, weight: float) -> None:
    for prompt in ("one", "two words", "three. then"):
        one = asked(engine, {"weight": weight, "candidates": 6}, prompt=prompt)
        result = await whole(one)
        wanted = args(world(engine, one), "marks", k=6, weight=weight, steps=14)
        assert not parted([token for token, _ in result.logprobs], wanted)
        assert result.usage.monitor_calls == 6 * result.usage.committed_tokens
        assert result.usage.generated_tokens == result.usage.committed_tokens


async def test_draws_follow_the_stated_distribution(engine: TableEngine) -> None:
    sampling = Sampling(temperature=0.7)
    one = asked(engine, {"weight": 1.5, "candidates": 6}, max_tokens=1, sampling=sampling)
    row, decode = log_softmax(engine.logits(spell(one.prompt))), engine.tokenizer.decode
    top = world(engine, one).likeliest(row, 6)
    tilted = {v: (float(row[v]) + 1.5 * mark(decode([v]).lstrip(), "marks")) / 0.7 for v in top}

    async def first(seed: int) -> str:
        params = {"weight": 1.5, "candidates": 6}
        return (
            await whole(asked(engine, params, max_tokens=1, sampling=sampling, seed=seed))
        ).content

    said = await asyncio.gather(*map(first, range(600)))
    texts = {decode([v]).lstrip(): v for v in top}
    p = goodness([texts[text] for text in said], normal(tilted, len(row)))
    assert p > SURE, f"chi-square p = {p:.2g} over n = {len(said)} draws"


@pytest.mark.parametrize(
    ("params", "param"), [({"monitor": "nobody"}, "monitor"), ({"policy": "first"}, "policy")]
)
def test_what_is_not_there_is_refused_by_name(params: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        estimate(asked(table(), params))
    assert caught.value.param == f"decoding.params.{param}"


async def test_the_full_trace_holds_what_was_proposed(engine: TableEngine) -> None:
    result = await whole(asked(engine, {"candidates": 6}, trace=TraceLevel.FULL))
    for node in (result.summary.trace or {})["nodes"]:
        assert [one["scores"] for one in node["proposed"]] == [[q] for q in node["rewards"]]
        assert node["proposed"][node["rank"]]["tokens"] == node["tokens"]
        assert len({tuple(one["tokens"]) for one in node["proposed"]}) == 6


def test_it_needs_log_probabilities() -> None:
    assert Capability.LOGPROBS in find("args").requires
