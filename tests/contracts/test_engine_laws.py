"""Laws that hold for every engine; what an engine says is held against what it says elsewhere."""

import asyncio
import math
from contextlib import aclosing, suppress

import httpx
import pytest

from engines.base import (
    Capability,
    Engine,
    Finish,
    Sampling,
    Structured,
    StructuredKind,
    UnsupportedError,
)
from engines.sequence import Sequence
from tests.contracts.engine_calls import (
    GREEDY,
    PROMPTS,
    encoded,
    freed,
    near_ties,
    tokens_of,
    whole,
)

CLOSE = 1e-4  # natural log; float32 summed in another order differs by about 1e-6


@pytest.fixture
def prompt(engine: Engine) -> list[int]:
    return engine.tokenizer.encode(PROMPTS[3])


async def test_it_can_answer(engine: Engine) -> None:
    await engine.check()
    assert Capability.GENERATE in engine.capabilities
    assert engine.running == 0


async def test_a_forks_continuation_does_not_change_its_parent(
    engine: Engine, prompt: list[int]
) -> None:
    parent = Sequence(engine, tuple(prompt))
    before = await tokens_of(engine, parent.ids)
    fork = parent.fork().append(engine.tokenizer.encode("something else"))
    await tokens_of(engine, fork.ids)
    assert parent.ids == tuple(prompt)
    assert await near_ties(engine, prompt, before, await tokens_of(engine, parent.ids)) == 0


async def test_score_is_the_sum_of_stepwise_logprobs(engine: Engine, prompt: list[int]) -> None:
    continuation = engine.tokenizer.encode(" It went")
    found = await engine.score(prompt, continuation)
    assert [one.token for one in found] == continuation
    stepwise = []
    for at, token in enumerate(continuation):
        prefix = [*prompt, *continuation[:at]]
        stepwise.append((await engine.next_logprobs(prefix, tokens=[token]))[token])
    assert [one.logprob for one in found] == pytest.approx(stepwise, abs=CLOSE)
    assert sum(one.logprob for one in found) == pytest.approx(sum(stepwise), abs=CLOSE)


async def test_prompt_logprobs_are_scores(engine: Engine, prompt: list[int]) -> None:
    found = await engine.prompt_logprobs(prompt, 2)
    assert len(found) == len(prompt)
    assert found[0] is None
    scored = await engine.score(prompt[:1], prompt[1:])
    rest = [one for one in found[1:] if one is not None]
    assert [one.token for one in rest] == prompt[1:]
    assert [one.logprob for one in rest] == pytest.approx([s.logprob for s in scored], abs=CLOSE)
    for one in rest:
        assert len(one.top) == 2
        assert one.top[0][1] >= one.top[1][1]
        assert one.logprob <= one.top[0][1] + CLOSE


@pytest.mark.parametrize("chunk", [1, 7])
async def test_chunking_and_appending_change_nothing(
    engine: Engine, prompt: list[int], chunk: int
) -> None:
    at_once = await tokens_of(engine, prompt, limit=21)
    sequence = Sequence(engine, tuple(prompt))
    for _ in range(0, 21, chunk):
        sequence = sequence.append(await tokens_of(engine, sequence.ids, limit=chunk))
    assert await near_ties(engine, prompt, at_once, sequence.ids[len(prompt) :]) == 0


async def test_rewinding_changes_nothing(engine: Engine, prompt: list[int]) -> None:
    at_once = await tokens_of(engine, prompt)
    sequence = Sequence(engine, tuple(prompt)).append(at_once)
    back = sequence.rewind(len(prompt) + 9)
    again = [*at_once[:9], *await tokens_of(engine, back.ids, limit=15)]
    assert await near_ties(engine, prompt, at_once, again) == 0


async def test_the_seed_decides_the_tokens(engine: Engine, prompt: list[int]) -> None:
    sampling = Sampling(seed=11, ignore_eos=True)
    first = await tokens_of(engine, prompt, sampling, 32)
    assert await tokens_of(engine, prompt, sampling, 32) == first
    other = await tokens_of(engine, prompt, sampling.but(seed=12), 32)
    unseeded = await tokens_of(engine, prompt, sampling.but(seed=None), 32)
    assert first != other
    assert first != unseeded


async def test_a_seed_holds_in_company(engine: Engine, prompt: list[int]) -> None:
    seeds = [Sampling(seed=seed, ignore_eos=True) for seed in range(6)]
    alone = [await tokens_of(engine, prompt, one, 16) for one in seeds]
    together = await asyncio.gather(*(tokens_of(engine, prompt, one, 16) for one in seeds))
    assert list(together) == alone


@pytest.mark.parametrize("limit", [1, 5, 17])
async def test_the_limit_holds_to_the_token(engine: Engine, prompt: list[int], limit: int) -> None:
    found = await whole(engine, prompt, GREEDY, limit)
    assert len(found.tokens) == limit
    assert found.finish is Finish.LENGTH


async def test_the_context_ends_it(engine: Engine) -> None:
    prefix = engine.tokenizer.encode("abc ")
    prefix = (prefix * engine.max_context)[: engine.max_context - 3]
    found = await whole(engine, prefix, GREEDY, 50)
    assert len(found.tokens) == 3
    assert found.finish is Finish.LENGTH
    with pytest.raises(UnsupportedError):
        await whole(engine, [*prefix, *prefix[:3]], GREEDY, 1)


async def test_a_stop_token_is_included_and_ends_it(engine: Engine, prompt: list[int]) -> None:
    greedy = await tokens_of(engine, prompt, limit=40)
    at = max(greedy.index(token) for token in set(greedy))
    found = await whole(engine, prompt, GREEDY.but(stop_token_ids=(greedy[at],)), 40)
    assert found.tokens == greedy[: at + 1]
    assert found.finish is Finish.STOP


async def test_the_end_of_sequence_ends_it_unless_ignored(
    engine: Engine, prompt: list[int]
) -> None:
    eos = engine.tokenizer.eos_id
    assert eos is not None
    sampling = Sampling(temperature=0, logit_bias={eos: 100.0})
    found = await whole(engine, prompt, sampling, 9)
    assert (found.tokens, found.finish) == ([eos], Finish.STOP)
    ignored = await whole(engine, prompt, sampling.but(ignore_eos=True), 9)
    assert (ignored.tokens, ignored.finish) == ([eos] * 9, Finish.LENGTH)


async def test_min_tokens_hold_it_open(engine: Engine, prompt: list[int]) -> None:
    eos = engine.tokenizer.eos_id
    assert eos is not None
    sampling = Sampling(temperature=0, logit_bias={eos: 100.0}, min_tokens=5)
    found = await whole(engine, prompt, sampling, 20)
    assert found.tokens[5:] == [eos]
    assert eos not in found.tokens[:5]


async def test_banned_tokens_are_never_drawn(engine: Engine, prompt: list[int]) -> None:
    likely = await engine.next_logprobs(prompt, 6)
    *banned, allowed = likely
    greedy = await tokens_of(engine, prompt, GREEDY.but(banned=tuple(banned)), 30)
    assert greedy[0] == allowed
    sampling = Sampling(banned=tuple(banned), ignore_eos=True)
    runs = [tokens_of(engine, prompt, sampling.but(seed=seed), 30) for seed in range(8)]
    drawn = {token for run in await asyncio.gather(*runs) for token in run} | set(greedy)
    assert not drawn & set(banned)


async def test_repeating_can_be_penalised(engine: Engine, prompt: list[int]) -> None:
    plain = await tokens_of(engine, prompt, limit=64)
    once = await tokens_of(engine, prompt, GREEDY.but(presence_penalty=2.0), 64)
    assert len(set(plain)) < len(set(once))


async def test_next_logprobs_agree_with_themselves(engine: Engine, prompt: list[int]) -> None:
    top = await engine.next_logprobs(prompt, 10)
    assert len(top) == 10
    assert list(top.values()) == sorted(top.values(), reverse=True)
    every = await engine.next_logprobs(prompt, tokens=range(200))
    assert set(every) == set(range(200))
    for token, logprob in top.items():
        assert every.get(token, logprob) == pytest.approx(logprob, abs=CLOSE)


async def test_a_sampled_tokens_logprob_is_its_own(engine: Engine, prompt: list[int]) -> None:
    found = await whole(engine, prompt, Sampling(seed=5, logprobs=3, ignore_eos=True), 12)
    assert [one.token for one in found.logprobs] == found.tokens
    scored = await engine.score(prompt, found.tokens)
    said = [one.logprob for one in found.logprobs]
    assert said == pytest.approx([one.logprob for one in scored], abs=CLOSE)
    top = await engine.next_logprobs(prompt, 3)
    assert dict(found.logprobs[0].top) == pytest.approx(top, abs=CLOSE)


async def test_logprobs_are_of_the_distribution_that_drew(
    engine: Engine, prompt: list[int]
) -> None:
    sharp = Sampling(temperature=0.5, top_k=5, seed=5, logprobs=5)
    found = (await whole(engine, prompt, sharp, 1)).logprobs[0]
    top = await engine.next_logprobs(prompt, 5)
    weights = {token: math.exp(value / 0.5) for token, value in top.items()}
    expected = {token: math.log(w / sum(weights.values())) for token, w in weights.items()}
    assert found.logprob == pytest.approx(expected[found.token], abs=CLOSE)
    assert dict(found.top) == pytest.approx(expected, abs=CLOSE)


async def test_no_alternatives_means_none(engine: Engine, prompt: list[int]) -> None:
    found = await whole(engine, prompt, GREEDY.but(logprobs=0), 3)
    assert [one.top for one in found.logprobs] == [(), (), ()]


async def test_cancelling_the_task_frees_the_request(engine: Engine, prompt: list[int]) -> None:
    began = asyncio.Event()

    async def read() -> None:
        async with aclosing(engine.generate(prompt, GREEDY, 400)) as deltas:
            async for _ in deltas:
                began.set()

    task = asyncio.create_task(read())
    await began.wait()
    assert engine.running == 1
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert await freed(engine)
    await engine.check()


async def test_closing_the_generator_frees_the_request(engine: Engine, prompt: list[int]) -> None:
    deltas = engine.generate(prompt, GREEDY, 400)
    await anext(deltas)
    assert engine.running == 1
    await deltas.aclose()
    assert await freed(engine)


async def test_cancelling_a_call_frees_it(engine: Engine, prompt: list[int]) -> None:
    calls = [asyncio.create_task(engine.score(prompt, prompt)) for _ in range(4)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    assert all(
        isinstance(one, asyncio.CancelledError)
        for one in await asyncio.gather(*calls, return_exceptions=True)
    )
    assert await freed(engine)


async def test_together_as_alone(engine: Engine) -> None:
    prompts = encoded(engine, 12)
    alone = [await tokens_of(engine, one) for one in prompts]
    together = await asyncio.gather(*(tokens_of(engine, one) for one in prompts))
    pairs = zip(prompts, alone, together, strict=True)
    ties = sum([await near_ties(engine, prompt, a, b) for prompt, a, b in pairs])
    assert ties <= 2, f"{ties} of {len(prompts)} parted at near-ties"


async def test_what_it_cannot_do_it_refuses(engine: Engine, prompt: list[int]) -> None:
    with pytest.raises(UnsupportedError):
        await whole(engine, [len(engine.tokenizer) + 10_000], GREEDY, 1)
    with pytest.raises(ValueError, match="prefix"):
        await whole(engine, [], GREEDY, 1)
    with pytest.raises(ValueError, match="limit"):
        await whole(engine, prompt, GREEDY, 0)


GRAMMARS = [
    Structured(StructuredKind.CHOICE, ["red", "blue"]),
    Structured(StructuredKind.REGEX, "[0-9]{3}"),
]


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.kind.value)
async def test_a_grammar_holds_or_is_refused(
    engine: Engine, prompt: list[int], grammar: Structured
) -> None:
    sampling = Sampling(seed=2, structured=grammar)
    if Capability.STRUCTURED not in engine.capabilities:
        with pytest.raises(UnsupportedError):
            await whole(engine, prompt, sampling, 9)
        return
    found = await whole(engine, prompt, sampling, 9)
    assert found.finish is Finish.STOP
    text = engine.tokenizer.decode(found.tokens)
    assert text in ("red", "blue") or (len(text) == 3 and text.isdecimal())


@pytest.mark.vllm
async def test_leaving_frees_the_upstream_too(remote: Engine, upstream: str) -> None:
    """As the upstream itself counts its requests."""

    async def working() -> float:
        async with httpx.AsyncClient() as client:
            lines = (await client.get(f"{upstream}/metrics")).text.splitlines()
        return sum(float(x.split()[-1]) for x in lines if x.startswith("vllm:num_requests_running"))

    deltas = remote.generate(remote.tokenizer.encode("a"), GREEDY, 500)
    await anext(deltas)
    await deltas.aclose()
    deadline = asyncio.get_running_loop().time() + 1.0
    left = await working()
    while left and asyncio.get_running_loop().time() < deadline:
        left = await working()
    assert left == 0
