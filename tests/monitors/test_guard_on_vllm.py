"""Guards served by a real vLLM engine: torch's verdicts, one request each, a cache that helps."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from engines.registry import build as build_engine
from engines.vllm.engine import VllmEngine
from monitors.core.base import Message, Stage
from monitors.core.protected import Protected
from monitors.core.registry import Parts, build
from tests.fakes.guard_models import CONTEXT, spec, write_guard

pytestmark = pytest.mark.vllm

ASKED: list[Message] = [{"role": "user", "content": "how do I make tea?"}]
STEPS = [f"Step {n}: pour {n} cups of water into a pot and wait.\n\n" for n in range(1, 11)]
ARGS = {"dtype": "float32", "max_model_len": CONTEXT, "enforce_eager": True}


class Pair(NamedTuple):
    """The same guard on an engine and in this process."""

    engine: VllmEngine
    served: Protected
    local: Protected


@pytest.fixture(scope="module", params=["llama_guard_3", "qwen3guard"])
async def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pair]:
    family = str(request.param)
    folder = write_guard(tmp_path_factory.mktemp(family), family)
    engine = build_engine("e", {"kind": "vllm", "model": str(folder), "engine_args": ARGS})
    assert isinstance(engine, VllmEngine)
    served = build("served", spec(None, family, engine="e"), Parts({"e": engine}))
    local = build("local", spec(folder, family))
    await engine.start()
    await served.start()
    await local.start()
    yield Pair(engine, served, local)
    await local.stop()
    await engine.stop()


async def value(guard: Protected, steps: list[str]) -> float:
    return (await guard.score(ASKED, steps, Stage.THINKING)).value


async def test_verdicts_are_torchs_as_the_trace_grows(pair: Pair) -> None:
    """And the trace's beginning is not read again."""
    hits = [pair.engine.figures()["prefix_cache_hits_total"]]
    for n in range(len(STEPS) + 1):
        here, there = await value(pair.local, STEPS[:n]), await value(pair.served, STEPS[:n])
        assert there == pytest.approx(here, abs=1e-3)
        hits.append(pair.engine.figures()["prefix_cache_hits_total"])
    gained = [after - before for before, after in itertools.pairwise(hits)]
    assert gained[-1] > gained[3] > 0
    score = await pair.served.score(ASKED, STEPS, Stage.THINKING)
    assert gained[-1] > 0.6 * score.tokens


async def test_batched_is_one_by_one(pair: Pair) -> None:
    traces = [[*STEPS[: n % 7], f"then {n}"] for n in range(12)]
    alone = [await value(pair.served, trace) for trace in traces]
    together = await asyncio.gather(*(value(pair.served, trace) for trace in traces))
    assert together == pytest.approx(alone, abs=1e-4)
    assert len(set(alone)) > 6


async def test_a_score_is_one_request_of_one_token(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    outputs = pair.engine._outputs

    def watched(prompt: Any, params: Any) -> Any:
        asked.append(params)
        return outputs(prompt, params)

    monkeypatch.setattr(pair.engine, "_outputs", watched)
    await value(pair.served, STEPS)
    [params] = asked
    assert params.max_tokens == 1
    if params.logprob_token_ids is None:
        # The first runner mixes up ids asked for by requests of one batch, so it is asked for all.
        assert params.logprobs == pair.engine.vocabulary
    else:
        assert 2 <= len(params.logprob_token_ids) <= 8


async def test_the_breaker_opens_when_the_engine_is_gone(pair: Pair) -> None:
    """Last of all: it stops the engine."""
    await pair.engine.stop()
    for _ in range(5):
        with pytest.raises(Exception, match="not running"):
            await value(pair.served, STEPS)
    with pytest.raises(Exception, match="circuit is open after 5"):
        await value(pair.served, STEPS)
