"""Plain decoding is one engine request and nothing besides."""

import pytest

from decoders.core.answer import answer
from decoders.core.ledger import Ledger
from engines.base import EngineError, Sampling
from tests.fakes.requests import request, table, whole


async def test_it_says_what_the_engine_says() -> None:
    engine = table()
    await engine.start()
    asked = request(engine, sampling=Sampling(temperature=0.0))
    sampled = [
        token
        async for delta in engine.generate(asked.prompt, asked.sampling, asked.max_tokens)
        for token in delta.tokens
    ]
    result = await whole(asked)
    assert result.content == "The answer is 7."
    assert result.usage.committed_tokens == result.usage.generated_tokens == len(sampled)
    assert result.usage.engine_requests == 1
    assert (result.usage.discarded_tokens, result.usage.forced_tokens) == (0, 0)
    await engine.stop()


@pytest.mark.parametrize("fails", [False, True])
async def test_what_was_given_counts_however_it_ends(fails: bool) -> None:
    failure = {"failure": {"after": 9, "kind": "error"}} if fails else {}
    engine = table(**failure)
    await engine.start()
    [ledger] = Ledger.for_choices(request(engine).budget, 1, 0.0)
    pieces, given = answer(request(engine), 0, ledger), 0
    try:
        async for piece in pieces:
            given += len(piece.tokens)
            if given >= 9 and not fails:
                break
    except EngineError:
        assert fails
    await pieces.aclose()
    usage = ledger.usage
    assert 0 < given <= usage.committed_tokens
    assert usage.reasoning_tokens == usage.committed_tokens - 1  # the marker is none
    assert usage.discarded_tokens == usage.generated_tokens - usage.committed_tokens
    await engine.stop()
