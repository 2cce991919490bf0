"""Plain decoding is one engine request and nothing besides."""

from engines.base import Sampling
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
