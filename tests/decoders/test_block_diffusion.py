"""What block_diffusion adds to the engine: parameters, streaming, the trace, the books."""

from contextlib import aclosing
from typing import Any

import pytest

from decoders.core.answer import answer
from decoders.core.base import DecodeRequest, RequestError, TraceLevel
from decoders.core.ledger import Ledger
from decoders.core.run import estimate
from engines.base import Sampling, Schedule
from engines.diffusion.engine import DiffusionEngine
from tests.fakes import requests
from tests.fakes.requests import whole

SMALL: dict[str, Any] = {"length": 16, "block_length": 4}


def request(
    engine: DiffusionEngine, params: dict[str, Any] | None = None, **fields: Any
) -> DecodeRequest:
    fields.setdefault("sampling", Sampling(temperature=0.0, ignore_eos=True))
    params = {**SMALL, **(params or {})}
    return requests.request(engine, "block_diffusion", params, **{"think": None, **fields})


async def tokens_of(engine: DiffusionEngine, asked: DecodeRequest, **schedule: Any) -> list[int]:
    """What the engine by itself fills a canvas with."""
    sampling = asked.sampling.but(schedule=Schedule(**schedule))
    deltas = engine.generate(asked.prompt, sampling, 999)
    return [token async for delta in deltas for token in delta.tokens]


@pytest.mark.parametrize(
    ("params", "schedule"),
    [
        ({}, {"steps": 8}),
        ({"steps": 16}, {"steps": 16}),
        (
            {"rule": "threshold", "threshold": 0.2},
            {"steps": 8, "rule": "threshold", "numbers": {"threshold": 0.2}},
        ),
        (
            {"rule": "saber", "n": 3, "divisor": 4},
            {"steps": 8, "rule": "saber", "numbers": {"n": 3, "divisor": 4}},
        ),
        ({"cache": "dual", "refresh": 1}, {"steps": 8, "cache": "dual", "refresh": 1}),
        ({"guidance": 1.0}, {"steps": 8, "guidance": 1.0}),
    ],
)
async def test_parameters_reach_the_engine(
    params: dict[str, Any], schedule: dict[str, Any], canvas: DiffusionEngine
) -> None:
    asked = request(canvas, params)
    result = await whole(asked)
    expected = await tokens_of(canvas, asked, length=16, block=4, **schedule)
    assert result.usage.committed_tokens == 16
    # A character that has not ended is not shown.
    assert canvas.tokenizer.decode(expected).lstrip().startswith(result.content)
    plain = await tokens_of(canvas, asked, length=16, block=4, steps=8)
    assert (expected != plain) == bool(params)


async def test_a_temperature_of_its_own_beats_the_requests(canvas: DiffusionEngine) -> None:
    own = await whole(request(canvas, {"temperature": 0.0}, sampling=Sampling(ignore_eos=True)))
    assert own.content == (await whole(request(canvas))).content


@pytest.mark.parametrize(
    ("max_tokens", "block", "length"), [(20, 8, 24), (20, 32, 32), (60, 32, 64), (999, 32, 128)]
)
async def test_a_canvas_holds_max_tokens_in_whole_blocks(
    max_tokens: int, block: int, length: int, canvas: DiffusionEngine
) -> None:
    """The context of 160 has room for 155 behind the prompt."""
    params = {"length": None, "block_length": block}
    asked = request(canvas, params, max_tokens=max_tokens, prompt="hello")
    result = await whole(asked)
    assert result.summary.fields["length"] == length
    assert result.usage.committed_tokens == min(max_tokens, length)
    assert estimate(asked).generated_tokens == min(max_tokens, length)


@pytest.mark.parametrize(("stream", "sizes"), [("block", [4, 4, 4, 4]), ("prefix", None)])
async def test_what_stands_leaves_at_once(
    stream: str, sizes: list[int] | None, canvas: DiffusionEngine
) -> None:
    asked = request(canvas, {"stream": stream, "steps": 16}, trace=TraceLevel.NONE)
    counts, content = [], ""
    async with aclosing(answer(asked, 0, Ledger())) as pieces:
        async for piece in pieces:
            counts.append(len(piece.tokens))
            content += piece.content
    counts = [count for count in counts if count]
    assert content == (await whole(asked)).content
    assert counts == sizes if sizes else len(counts) > 4


async def test_the_full_trace_has_the_order_and_the_confidences(canvas: DiffusionEngine) -> None:
    result = await whole(request(canvas, {"steps": 16}, trace=TraceLevel.FULL))
    nodes = (result.summary.trace or {})["nodes"]
    order = [one for node in nodes if node["kind"] == "filled" for one in node["order"]]
    assert [one["step"] for one in order] == list(range(16))
    assert sorted(one["position"] for one in order) == list(range(16))
    assert [one["position"] // 4 for one in order] == [step // 4 for step in range(16)]
    assert all(0 < one["confidence"] <= 1 for one in order)
    by_place = [one["token"] for one in sorted(order, key=lambda one: one["position"])]
    assert canvas.tokenizer.decode(by_place).lstrip().startswith(result.content)


async def test_masking_again_is_told(canvas: DiffusionEngine) -> None:
    params = {"rule": "saber", "length": 32, "block_length": 16, "n": 4}
    sampling = Sampling(temperature=1.0, ignore_eos=True)
    result = await whole(request(canvas, params, trace=TraceLevel.FULL, sampling=sampling))
    nodes = (result.summary.trace or {})["nodes"]
    order = [one for node in nodes if node["kind"] == "filled" for one in node["order"]]
    again = sum(one["token"] is None for one in order)
    assert again > 0
    assert len(order) - 2 * again == 32 == result.usage.generated_tokens


async def test_passes_are_booked(canvas: DiffusionEngine) -> None:
    for params, passes in (({}, 8), ({"steps": 4}, 4), ({"guidance": 2.0}, 16)):
        usage = (await whole(request(canvas, params))).usage
        assert usage.decoding() == {
            "generated_tokens": 16, "discarded_tokens": 0, "engine_requests": 1,
            "forward_passes": passes, "monitor_calls": 0, "monitor_tokens": 0,
        }  # fmt: skip


async def test_what_stands_behind_the_end_is_discarded(canvas: DiffusionEngine) -> None:
    greedy = await tokens_of(canvas, request(canvas), length=16, block=16, steps=8)
    stop = greedy[5]
    sampling = Sampling(temperature=0.0, ignore_eos=True, stop_token_ids=(stop,))
    params = {"block_length": 16, "early_stop": False}
    result = await whole(request(canvas, params, sampling=sampling))
    assert result.finish == "stop"
    end = greedy.index(stop) + 1
    assert result.usage.committed_tokens == end
    assert result.usage.discarded_tokens == 16 - end


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"block_length": 5}, "block_length"),
        ({"steps": 3}, "steps"),
        ({"steps": 17}, "steps"),
        ({"length": 320}, "length"),
        ({"gamma": 0.5}, "gamma"),
        ({"rule": "saber", "threshold": 0.5}, "threshold"),
    ],
)
def test_a_schedule_that_does_not_add_up_is_refused(
    params: dict[str, Any], where: str, canvas: DiffusionEngine
) -> None:
    with pytest.raises(RequestError) as caught:
        estimate(request(canvas, params))
    assert caught.value.param == f"decoding.params.{where}"
    assert str(caught.value).startswith(f"decoding.params.{where}: ")
