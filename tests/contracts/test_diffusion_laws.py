"""Laws over every strategy of diffusion models, on a tiny random one in LLaDA's format."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from decoders.core.answer import answer
from decoders.core.base import Budget, DecodeRequest, RequestError, TraceLevel
from decoders.core.ledger import Ledger
from decoders.core.registry import find
from decoders.core.run import checked, estimate
from engines.base import BoundaryError, Sampling
from engines.diffusion.engine import DiffusionEngine
from tests.contracts.engine_calls import freed
from tests.fakes import canvases, requests
from tests.fakes.requests import DIFFUSION, Whole, whole
from tests.waiting import until

EVERY = pytest.mark.parametrize("name", DIFFUSION)
PARAMS: dict[str, dict[str, Any]] = {
    "block_diffusion": {"length": 32, "block_length": 4},
    "hex": {"length": 32, "blocks": [2, 8, 16], "seeds": 2, "answer": "text"},
}
LONG: dict[str, dict[str, Any]] = {
    "block_diffusion": {"length": 128, "steps": 128},
    "hex": {"length": 128, "steps": 128, "blocks": [2, 8, 16], "seeds": 4, "answer": "text"},
}


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DiffusionEngine]:
    ready = await canvases.started(canvases.llada(tmp_path_factory.mktemp("canvas")))
    yield ready
    await ready.stop()


def request(
    engine: DiffusionEngine, name: str, params: dict[str, Any] | None = None, **fields: Any
) -> DecodeRequest:
    fields.setdefault("sampling", Sampling(temperature=1.0, ignore_eos=True))
    params = PARAMS[name] if params is None else params
    return requests.request(engine, name, params, **{"think": None, **fields})


def texts(result: Whole) -> tuple[str, str]:
    return result.content, result.finish


@EVERY
async def test_same_seed_same_answer_in_any_company(name: str, engine: DiffusionEngine) -> None:
    asked = request(engine, name)
    alone = await whole(asked)
    other = replace(asked, seed=6)
    together = await asyncio.gather(whole(asked), whole(other), whole(request(engine, "hex")))
    assert texts(together[0]) == texts(alone)
    assert together[0].usage == alone.usage
    assert texts(together[1]) != texts(alone)


@EVERY
@pytest.mark.parametrize("cap", [1, 2, 7, 23, 40, 150])
async def test_the_token_budget_holds_to_the_token(
    name: str, cap: int, engine: DiffusionEngine
) -> None:
    result = await whole(request(engine, name, budget=Budget(max_generated_tokens=cap)))
    assert 0 < result.usage.generated_tokens <= cap
    if result.usage.generated_tokens == cap and result.finish == "length":
        assert result.summary.outcome == "budget_exhausted"


@EVERY
@pytest.mark.parametrize("asked", [{}, None])
async def test_max_tokens_caps_the_answer(
    name: str, asked: dict[str, Any] | None, engine: DiffusionEngine
) -> None:
    for cap in (1, 5, 20, 30):
        result = await whole(request(engine, name, asked, max_tokens=cap))
        assert 0 < result.usage.committed_tokens <= cap
        assert result.finish == "length"


@EVERY
async def test_branches_are_capped(name: str, engine: DiffusionEngine) -> None:
    result = await whole(request(engine, name, budget=Budget(max_branches=2)))
    assert result.summary.branches <= 2
    assert result.usage.engine_requests <= 2


@EVERY
async def test_a_deadline_is_an_outcome(name: str, engine: DiffusionEngine) -> None:
    asked = request(engine, name, LONG[name], max_tokens=128, budget=Budget(deadline_ms=40))
    result = await whole(asked)
    assert result.finish == "length"
    assert result.summary.outcome == "budget_exhausted"
    assert result.summary.reason == "deadline_ms"
    assert await freed(engine)


@EVERY
@pytest.mark.parametrize("pieces_first", [0, 1])
async def test_closing_ends_everything(
    name: str, pieces_first: int, engine: DiffusionEngine
) -> None:
    asked = request(engine, name, LONG[name], max_tokens=128, stream_events=True)
    async with aclosing(answer(asked, 0, Ledger())) as pieces:
        for _ in range(pieces_first):
            await anext(pieces)
    assert engine.running == 0


@EVERY
async def test_cancelling_ends_everything(name: str, engine: DiffusionEngine) -> None:
    task = asyncio.create_task(whole(request(engine, name, LONG[name], max_tokens=128)))
    await until(lambda: engine.running > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0


@EVERY
async def test_events_and_trace_change_nothing(name: str, engine: DiffusionEngine) -> None:
    quiet = await whole(request(engine, name))
    loud = await whole(request(engine, name, stream_events=True, trace=TraceLevel.FULL))
    assert texts(quiet) == texts(loud)
    assert quiet.usage == loud.usage
    told = {k: v for k, v in loud.summary.as_dict().items() if k != "trace"}
    assert quiet.summary.as_dict() == told
    assert (loud.summary.trace or {})["version"] == 1
    assert loud.events


@EVERY
async def test_usage_adds_up(name: str, engine: DiffusionEngine) -> None:
    asked = request(engine, name)
    usage = (await whole(asked)).usage
    assert usage.generated_tokens - usage.discarded_tokens == usage.committed_tokens
    assert usage.forward_passes >= 16 * usage.engine_requests
    assert usage.generated_tokens <= estimate(asked).generated_tokens
    assert usage.engine_requests <= estimate(asked).engine_requests


@EVERY
async def test_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        checked(find(name).options, {"no_such_option": 1}, "decoding.params")
    assert caught.value.param == "decoding.params.no_such_option"


@pytest.mark.parametrize("name", [name for name in DIFFUSION if find(name).null is not None])
@pytest.mark.parametrize("rule", ["confidence", "threshold", "saber"])
async def test_null_setting_equals_another_strategy(
    name: str, rule: str, engine: DiffusionEngine
) -> None:
    null = find(name).null
    assert null is not None
    own = request(engine, name, {**null.options, "rule": rule})
    other = request(engine, null.equals, {**null.other_options, "rule": rule})
    one, two = await whole(own), await whole(other)
    assert texts(one) == texts(two)
    assert one.usage == two.usage


@EVERY
async def test_an_engine_that_fails_is_not_the_strategys_fault(
    name: str, engine: DiffusionEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(paths: object) -> None:
        raise RuntimeError("no memory")

    assert engine._scheduler is not None
    with monkeypatch.context() as patched, pytest.raises(BoundaryError, match="no memory"):
        patched.setattr(engine._scheduler, "step", broken)
        await whole(request(engine, name))
    assert engine.running == 0
    assert (await whole(request(engine, name))).content
