"""Sessions: sampling in steps equals sampling at once, and the engine's request is let go."""

import asyncio

import pytest

from engines.base import Finish, Sampling, UnsupportedError
from engines.vllm.engine import VllmEngine
from engines.vllm.session import Session
from tests.contracts.engine_calls import GREEDY, Whole, tokens_of, whole
from tests.waiting import until

pytestmark = pytest.mark.vllm

PROMPT = list(range(50, 95))


async def taken(session: Session, limit: int) -> Whole:
    found = Whole()
    async for delta in session.take(limit):
        found.tokens += delta.tokens
        found.logprobs += delta.logprobs or ()
        found.finish = delta.finish
    return found


@pytest.mark.parametrize("chunk", [1, 7, 16])
async def test_steps_equal_one_generation(vllm: VllmEngine, chunk: int) -> None:
    sampling = GREEDY.but(logprobs=2)
    at_once = await whole(vllm, PROMPT, sampling, 48)
    steps = Whole()
    async with vllm.session(PROMPT, sampling) as session:
        while len(steps.tokens) < 48:
            step = await taken(session, min(chunk, 48 - len(steps.tokens)))
            assert step.finish is Finish.LENGTH
            steps.tokens += step.tokens
            steps.logprobs += step.logprobs
        assert vllm.running == 1
    assert steps.tokens == at_once.tokens
    assert session.ids == (*PROMPT, *at_once.tokens)
    for found, wanted in zip(steps.logprobs, at_once.logprobs, strict=True):
        assert found.logprob == pytest.approx(wanted.logprob, abs=1e-4)
        assert [token for token, _ in found.top] == [token for token, _ in wanted.top]
    assert vllm.running == 0


async def test_a_seeded_session_draws_as_one_generation(vllm: VllmEngine) -> None:
    hot = Sampling(temperature=1.2, seed=9, ignore_eos=True)
    at_once = await tokens_of(vllm, PROMPT, hot, 30)
    async with vllm.session(PROMPT, hot) as session:
        steps = [token for _ in range(6) for token in (await taken(session, 5)).tokens]
    assert steps == at_once


async def test_forced_tokens_stand_where_they_were_put(vllm: VllmEngine) -> None:
    forced = list(b" so: ")
    async with vllm.session(PROMPT, GREEDY) as session:
        session.append(forced)
        first = (await taken(session, 9)).tokens
        session.append(forced)
        second = (await taken(session, 9)).tokens
    assert first == await tokens_of(vllm, [*PROMPT, *forced], GREEDY, 9)
    assert second == await tokens_of(vllm, [*PROMPT, *forced, *first, *forced], GREEDY, 9)
    assert session.ids == (*PROMPT, *forced, *first, *forced, *second)


async def test_it_goes_on_past_a_stop_token(vllm: VllmEngine) -> None:
    at_once = await tokens_of(vllm, PROMPT, GREEDY, 40)
    stop = at_once[10]
    first = at_once.index(stop)
    async with vllm.session(PROMPT, GREEDY.but(stop_token_ids=(stop,))) as session:
        begun = await taken(session, 40)
        assert begun.finish is Finish.STOP
        assert begun.tokens == at_once[: first + 1]
        more = await taken(session, 1)
    assert more.tokens == at_once[first + 1 : first + 2]


async def test_an_idle_session_gives_up_its_cache_and_goes_on(vllm: VllmEngine) -> None:
    at_once = await tokens_of(vllm, PROMPT, GREEDY, 20)
    async with vllm.session(PROMPT, GREEDY, idle=0.1) as session:
        first = (await taken(session, 10)).tokens
        assert session.held
        assert vllm.running == 1
        await until(lambda: not session.held)
        assert vllm.running == 0
        assert first + (await taken(session, 10)).tokens == at_once


async def test_a_take_given_up_keeps_what_was_seen(vllm: VllmEngine) -> None:
    at_once = await tokens_of(vllm, PROMPT, GREEDY, 40)
    async with vllm.session(PROMPT, GREEDY) as session:
        take = session.take(300)
        seen = list((await anext(take)).tokens)
        with pytest.raises(RuntimeError, match="in use"):
            session.append([60])
        await take.aclose()
        assert vllm.running == 0
        assert session.ids == (*PROMPT, *seen)
        await taken(session, 40 - len(seen))
    assert session.ids == (*PROMPT, *at_once)
    with pytest.raises(RuntimeError, match="closed"):
        await taken(session, 1)


async def test_cancelling_the_taker_frees_the_engine(vllm: VllmEngine) -> None:
    async with vllm.session(PROMPT, GREEDY) as session:
        task = asyncio.create_task(taken(session, 400))
        await until(lambda: vllm.running == 1)
        task.cancel()
        await asyncio.wait([task])
        assert vllm.running == 0


async def test_it_refuses_what_each_take_would_begin_anew(vllm: VllmEngine) -> None:
    for param in ("presence_penalty", "frequency_penalty", "min_tokens"):
        with pytest.raises(UnsupportedError) as caught:
            async with vllm.session(PROMPT, GREEDY.but(**{param: 1})):
                pass
        assert caught.value.param == param


async def test_it_ends_at_the_context(vllm: VllmEngine) -> None:
    async with vllm.session([50] * (vllm.max_context - 3), GREEDY) as session:
        assert len((await taken(session, 10)).tokens) == 3
        with pytest.raises(UnsupportedError, match="do not fit"):
            await taken(session, 1)
