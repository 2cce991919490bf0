"""Blockwise controlled decoding keeps the best block of each round, by the prefix it makes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from decoders.core.base import DecodeRequest, RequestError, TraceLevel
from decoders.core.run import estimate
from engines.base import Sampling
from engines.table import TableEngine
from tests.decoders.slow_policies import Marks, mark
from tests.fakes import requests
from tests.fakes.monitors import Told
from tests.fakes.policies import FaultyPool, pool
from tests.fakes.requests import table, whole


@pytest.fixture
async def engine() -> AsyncIterator[TableEngine]:
    made = table(script={})
    await made.start()
    yield made
    await made.stop()


def asked(engine: Any, params: dict[str, Any], **fields: Any) -> DecodeRequest:
    fields = {"max_tokens": 20, "think": None, "monitors": {"marks": Marks("marks")}, **fields}
    return requests.request(engine, "controlled_decoding", params, **fields)


async def test_each_round_the_best_prefix_stands(engine: TableEngine) -> None:
    one = asked(engine, {"samples": 5, "block": 4}, trace=TraceLevel.FULL)
    result = await whole(one)
    rounds = [node for node in (result.summary.trace or {})["nodes"] if node["kind"] == "block"]
    done: list[int] = []
    for node in rounds:
        done += node["tokens"]
        assert len(node["tokens"]) <= 4
        said = mark(engine.tokenizer.decode(done).lstrip(), "marks")
        assert node["scores"][node["block"]] == max(node["scores"]) == said
    assert len(rounds) == -(-result.usage.committed_tokens // 4)
    assert result.usage.monitor_calls <= 5 * len(rounds) <= estimate(one).monitor_calls
    assert result.usage.generated_tokens <= 5 * 20


async def test_a_block_as_long_as_the_answer_is_best_of_n(engine: TableEngine) -> None:
    result = await whole(asked(engine, {"samples": 6, "block": 20}, trace=TraceLevel.FULL))
    [node] = [n for n in (result.summary.trace or {})["nodes"] if n["kind"] == "block"]
    assert len(node["scores"]) == 6
    assert mark(result.content, "marks") == max(node["scores"])


async def test_a_greedy_block_is_the_only_one(engine: TableEngine) -> None:
    greedy = Sampling(temperature=0.0)
    result = await whole(asked(engine, {"samples": 4, "block": 5}, sampling=greedy))
    plain = requests.request(engine, sampling=greedy, max_tokens=20, think=None)
    assert result.content == (await whole(plain)).content
    assert result.usage.monitor_calls == 0


async def test_a_member_may_speak() -> None:
    made = pool(script={})
    await made.start()
    greedy = Sampling(temperature=0.0)
    result = await whole(asked(made, {"samples": 1, "policy": "second"}, sampling=greedy))
    second = requests.request(made.others[0], sampling=greedy, max_tokens=20, think=None)
    assert result.content == (await whole(second)).content
    with pytest.raises(RequestError) as caught:
        estimate(asked(made, {"policy": "nobody"}))
    assert caught.value.param == "decoding.params.policy"


@pytest.mark.parametrize("samples", [1, 3])
async def test_a_member_whose_rule_fails_is_told(samples: int) -> None:
    faulty = FaultyPool()
    await faulty.start()
    result = await whole(asked(faulty, {"samples": samples, "block": 4, "policy": "second"}))
    assert (result.summary.outcome, result.summary.reason) == ("degraded", "out of order")


@pytest.mark.parametrize("include", [True, False])
async def test_blocks_end_at_a_stop_string(include: bool) -> None:
    made = table(script={"say": ("<think>a. b</think>cd. e", "<think>a. c</think>cd. f")})
    await made.start()
    told = Told()
    one = asked(
        made, {"samples": 3, "block": 20}, think=requests.think(made.tokenizer), prompt="say",
        monitors={"told": told}, stop=(".",), include_stop=include,
    )  # fmt: skip
    result = await whole(one)
    shown = "cd." if include else "cd"
    assert (result.content, result.finish) == (shown, "stop")
    assert set(told.read) <= {("a. b", shown), ("a. c", shown)}
    # Two markers, the thinking and three characters.
    assert result.usage.generated_tokens == made.figures()["tokens_sampled"] == 3 * 9


async def test_the_full_trace_holds_every_block(engine: TableEngine) -> None:
    result = await whole(asked(engine, {"samples": 3, "block": 4}, trace=TraceLevel.FULL))
    for node in (result.summary.trace or {})["nodes"]:
        assert [one["scores"] for one in node["proposed"]] == [[score] for score in node["scores"]]
        assert node["proposed"][node["block"]]["tokens"] == node["tokens"]
