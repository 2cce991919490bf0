"""What is particular to the vLLM engine: counts, cancellation, the prefix cache, mixed batches."""

import asyncio
import random
from contextlib import aclosing

import pytest

from engines.base import Finish, Sampling
from engines.vllm.engine import VllmEngine
from tests.engines.vllm.conftest import MORE_END

pytestmark = pytest.mark.vllm

PROMPT = [70, 71, 72, 73]
ENDLESS = Sampling(ignore_eos=True)
CLOSE = 1e-4


async def greedy(engine: VllmEngine, prefix: list[int], limit: int) -> list[int]:
    sampling = Sampling(temperature=0, ignore_eos=True)
    return [t async for delta in engine.generate(prefix, sampling, limit) for t in delta.tokens]


async def idle(engine: VllmEngine, seconds: float = 2.0) -> bool:
    """Whether the engine's own process soon works on nothing, by its own count."""
    deadline = asyncio.get_running_loop().time() + seconds
    # The count comes with the engine's next step; there is no event to wait for.
    while engine.figures()["requests_running"] + engine.figures()["requests_waiting"]:
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.01)
    return engine.running == 0


async def test_whatever_ends_its_answers_is_known(vllm: VllmEngine) -> None:
    assert vllm.ends == {vllm.tokenizer.eos_id, MORE_END}
    pushed = Sampling(temperature=0.0, logit_bias={MORE_END: 100.0})
    async with aclosing(vllm.generate([70, 71], pushed, 5)) as deltas:
        [last] = [delta async for delta in deltas]
    assert (list(last.tokens), last.finish) == ([MORE_END], Finish.STOP)


async def test_a_prefix_is_left_as_it_was(vllm: VllmEngine) -> None:
    prefix = list(PROMPT)
    await greedy(vllm, prefix, 5)
    await vllm.score(prefix, [5, 6])
    await vllm.next_logprobs(prefix, 2)
    assert prefix == PROMPT


@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.001, 0.002, 0.004, 0.02])
async def test_cancelled_at_any_moment_nothing_stays(vllm: VllmEngine, delay: float) -> None:
    async def read(i: int) -> None:
        async with aclosing(vllm.generate([*PROMPT, i], ENDLESS, 400)) as deltas:
            async for _ in deltas:
                pass

    tasks = [asyncio.create_task(read(i)) for i in range(24)]
    await asyncio.sleep(delay)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert vllm.running == 0
    assert await idle(vllm)


async def test_a_restart_from_a_prefix_reads_the_cache(vllm: VllmEngine) -> None:
    prefix = [random.Random(1).randrange(5, 250) for _ in range(200)]
    first = await greedy(vllm, prefix, 20)
    hits = vllm.figures()["prefix_cache_hits_total"]
    assert await greedy(vllm, [*prefix, *first[:8]], 12) == first[8:]
    assert vllm.figures()["prefix_cache_hits_total"] - hits >= 200 - 2 * 32


async def test_a_score_is_the_same_over_the_cache(vllm: VllmEngine) -> None:
    draw = random.Random(2)
    prefix, other = ([draw.randrange(5, 250) for _ in range(100)] for _ in range(2))
    await vllm.next_logprobs(prefix, 1)
    hits = vllm.figures()["prefix_cache_hits_total"]
    over = await vllm.score(prefix, other)
    assert vllm.figures()["prefix_cache_hits_total"] > hits
    whole = await vllm.prompt_logprobs([*prefix, *other], 0)
    again = await vllm.score(prefix, other)
    for found in (over, again):
        assert [one.token for one in found] == other
        assert [one.logprob for one in found] == pytest.approx(
            [one.logprob for one in whole[100:] if one], abs=CLOSE
        )


async def test_alternatives_stand_beside_chosen_tokens(vllm: VllmEngine) -> None:
    """Requests that ask for alternatives and for chosen tokens share their batches unharmed."""
    sampling = Sampling(temperature=0, ignore_eos=True, logprobs=4)

    async def ranked() -> list[tuple[int, ...]]:
        deltas = [d async for d in vllm.generate(PROMPT, sampling, 40)]
        return [tuple(t for t, _ in entry.top) for d in deltas for entry in d.logprobs or ()]

    async def chosen() -> list[dict[int, float]]:
        return [await vllm.next_logprobs([*PROMPT, i], tokens=[1, 2, 250]) for i in range(20)]

    alone, asked = await ranked(), await chosen()
    together, asked_together = await asyncio.gather(ranked(), chosen())
    assert together == alone
    assert all(len(top) == 4 for top in together)
    for one, other in zip(asked, asked_together, strict=True):
        assert one == pytest.approx(other, abs=CLOSE)


async def test_every_next_token_has_a_logprob(vllm: VllmEngine) -> None:
    every = await vllm.next_logprobs(PROMPT)
    assert len(every) == vllm.vocabulary
    assert await vllm.next_logprobs(PROMPT, tokens=[9, 7]) == pytest.approx(
        {9: every[9], 7: every[7]}, abs=CLOSE
    )
