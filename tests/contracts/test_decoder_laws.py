"""Laws over every registered strategy, on an engine with known distributions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from decoders.core.answer import answer
from decoders.core.base import Budget, DecodeRequest, RequestError, TraceLevel
from decoders.core.ledger import Ledger
from decoders.core.registry import find, names
from decoders.core.run import checked, estimate
from engines.base import Capability, Engine, Sampling
from engines.table import Spec, TableEngine
from tests.fakes import requests
from tests.fakes.policies import JitteredPool, pool
from tests.fakes.requests import AUTOREGRESSIVE, THINKER, Jittered, Whole, whole
from tests.waiting import until

EVERY = pytest.mark.parametrize("name", AUTOREGRESSIVE)
WITH_NULL = [name for name in AUTOREGRESSIVE if find(name).null is not None]
# The one monitor wants a 7 in each step, so that an answer without one would only be refused.
LENIENT: dict[str, dict[str, Any]] = {"safethink": {"check_answer": False}}
# Small, and judged by what differs from one babble to the next.
VOWEL = {"kind": "regex", "pattern": "[aeiou][a-m ]?$"}
LATE = {"kind": "regex", "pattern": "[j-z .]$"}
AHEAD = {"candidates": 3, "lookahead": 3}
SMALL: dict[str, dict[str, Any]] = {
    "collab": {**AHEAD, "target": VOWEL},
    "sitalign": {**AHEAD, "primary": VOWEL, "constrained": [LATE], "thresholds": [0.3]},
    "args": {"candidates": 3, "monitor": VOWEL},
    "controlled_decoding": {"samples": 3, "block": 4, "monitor": VOWEL},
}


def request(
    engine: Engine, name: str, params: dict[str, Any] | None = None, **fields: Any
) -> DecodeRequest:
    light = {**LENIENT.get(name, {}), **SMALL.get(name, {})}
    return requests.request(engine, name, {**light, **(params or {})}, **fields)


def table(name: str, jitter: int | None = None, **spec: Any) -> TableEngine:
    """The table engine that can do what the strategy needs."""
    if Capability.RULES in find(name).requires:
        made: TableEngine = pool(**({} if jitter is None else {"kind": JitteredPool}), **spec)
    else:
        kind = TableEngine if jitter is None else Jittered
        made = kind("table", Spec(**{"script": {"hello": THINKER}, **spec}))
    if isinstance(made, Jittered):
        made.jitter = jitter or 0
    return made


@pytest.fixture
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[TableEngine]:
    ready = table(request.node.callspec.params["name"])
    await ready.start()
    yield ready
    await ready.stop()


def texts(result: Whole) -> tuple[str, str, str]:
    return result.reasoning, result.content, result.finish


@EVERY
async def test_same_seed_same_answer(name: str, engine: TableEngine) -> None:
    asked = request(engine, name, prompt="something else")
    first, second = await whole(asked), await whole(asked)
    assert texts(first) == texts(second)
    assert first.usage.committed_tokens == second.usage.committed_tokens
    other = await whole(replace(asked, seed=6))
    assert texts(other) != texts(first)


@EVERY
async def test_an_answer_does_not_depend_on_timing(name: str) -> None:
    seen = set()
    for jitter in range(6):
        engine = table(name, jitter, script={})
        await engine.start()
        seen.add(texts(await whole(request(engine, name, prompt="anything"))))
    assert len(seen) == 1


@EVERY
@pytest.mark.parametrize("cap", [1, 2, 7, 23, 40, 150])
async def test_the_token_budget_holds_to_the_token(
    name: str, cap: int, engine: TableEngine
) -> None:
    asked = request(engine, name, prompt="babble", budget=Budget(max_generated_tokens=cap))
    result = await whole(asked)
    assert 0 < result.usage.generated_tokens <= cap
    if result.usage.generated_tokens == cap and result.finish == "length":
        assert result.summary.outcome == "budget_exhausted"


@EVERY
async def test_max_tokens_caps_the_answer(name: str, engine: TableEngine) -> None:
    for cap in (1, 5, 30):
        result = await whole(request(engine, name, max_tokens=cap))
        assert result.usage.committed_tokens <= cap
        assert result.finish == "length"


@EVERY
async def test_branches_and_monitor_calls_are_capped(name: str, engine: TableEngine) -> None:
    budget = Budget(max_branches=2, max_monitor_calls=1)
    result = await whole(request(engine, name, budget=budget))
    assert result.summary.branches <= 2
    assert result.usage.monitor_calls <= 1
    ran_out = result.summary.as_dict()["outcome"] == "budget_exhausted"
    assert result.finish == ("length" if ran_out else "stop")


@EVERY
async def test_a_deadline_is_an_outcome(name: str) -> None:
    engine = table(name, token_seconds=0.01)
    await engine.start()
    taken = []
    for _ in range(3):
        began = asyncio.get_running_loop().time()
        result = await whole(request(engine, name, budget=Budget(deadline_ms=60)))
        taken.append(asyncio.get_running_loop().time() - began)
        assert result.finish == "length"
        assert result.summary.outcome == "budget_exhausted"
        assert result.summary.reason == "deadline_ms"
    assert min(taken) < 0.5
    assert engine.running == 0


@EVERY
@pytest.mark.parametrize("pieces_first", [0, 1, 2])
async def test_closing_ends_everything(name: str, pieces_first: int) -> None:
    engine = table(name, token_seconds=0.002)
    await engine.start()
    ledger = Ledger()
    async with aclosing(answer(request(engine, name), 0, ledger)) as pieces:
        for _ in range(pieces_first):
            await anext(pieces)
    assert engine.running == 0


@EVERY
async def test_cancelling_ends_everything(name: str) -> None:
    engine = table(name, token_seconds=0.01)
    await engine.start()
    task = asyncio.create_task(whole(request(engine, name, stream_events=True)))
    await asyncio.sleep(0.03)
    await until(lambda: engine.running > 0)  # it may be with a monitor
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0


@EVERY
async def test_events_and_trace_change_nothing(name: str, engine: TableEngine) -> None:
    quiet = await whole(request(engine, name))
    loud = await whole(request(engine, name, stream_events=True, trace=TraceLevel.FULL))
    assert texts(quiet) == texts(loud)
    assert quiet.summary.as_dict() == {
        k: v for k, v in loud.summary.as_dict().items() if k != "trace"
    }
    assert (loud.summary.trace or {})["version"] == 1


@EVERY
async def test_usage_adds_up(name: str, engine: TableEngine) -> None:
    result = await whole(request(engine, name, trace=TraceLevel.FULL))
    usage = result.usage
    nodes = (result.summary.trace or {})["nodes"]
    forced = sum(node["count"] for node in nodes if node["kind"] == "forced")
    sampled = usage.generated_tokens - usage.discarded_tokens
    assert usage.committed_tokens - forced <= sampled <= usage.committed_tokens
    assert usage.reasoning_tokens <= usage.committed_tokens
    assert usage.engine_requests >= 1
    assert usage.generated_tokens <= estimate(request(engine, name)).generated_tokens


@EVERY
async def test_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        checked(find(name).options, {"no_such_option": 1}, "decoding.params")
    assert caught.value.param == "decoding.params.no_such_option"


@EVERY
async def test_logprobs_of_what_is_returned(name: str, engine: TableEngine) -> None:
    asked = request(engine, name, sampling=Sampling(temperature=1.0, logprobs=2))
    result = await whole(asked)
    assert len(result.logprobs) == result.usage.committed_tokens
    plain = await whole(replace(asked, sampling=Sampling(temperature=1.0)))
    assert texts(plain) == texts(result)


@pytest.mark.parametrize("name", WITH_NULL)
@pytest.mark.parametrize("prompt", ["hello", "babble"])
async def test_null_setting_equals_another_strategy(
    name: str, prompt: str, engine: TableEngine
) -> None:
    null = find(name).null
    assert null is not None
    sampling = Sampling(temperature=0.0 if null.greedy else 1.0)
    own = request(engine, name, dict(null.options), prompt=prompt, sampling=sampling)
    other = request(engine, null.equals, dict(null.other_options), prompt=prompt, sampling=sampling)
    assert texts(await whole(own)) == texts(await whole(other))


@EVERY
async def test_an_engine_that_fails_is_not_the_strategys_fault(name: str) -> None:
    from engines.base import BoundaryError

    # Some ask the engine for one token at a time.
    after = 0 if name in SMALL else 3
    engine = table(name, failure={"kind": "error", "after": after})
    await engine.start()
    with pytest.raises(BoundaryError):
        await whole(request(engine, name))
    assert engine.running == 0


def test_every_strategy_declares_its_source() -> None:
    for name in names():
        strategy = find(name)
        assert strategy.source
        assert strategy.summary
        for parameter in strategy.options.model_fields.values():
            assert parameter.description, f"{name}: a parameter has no description"
