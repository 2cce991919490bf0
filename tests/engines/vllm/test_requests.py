"""What one vLLM engine does with requests: refuse, hold to grammars, free, survive a mixed load."""

import asyncio
import json
import random
from contextlib import aclosing

import jsonschema
import pytest

from engines.base import Sampling, Structured, StructuredKind, UnsupportedError
from engines.vllm.engine import VllmEngine
from tests.contracts.engine_calls import GREEDY, Whole, freed, tokens_of, whole

pytestmark = pytest.mark.vllm

PROMPT = list(range(40, 80))
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "kind": {"enum": ["a", "b"]},
        "right": {"type": "boolean"},
    },
    "required": ["name", "kind", "right"],
    "additionalProperties": False,
}


def held(kind: StructuredKind, value: object = None) -> Sampling:
    return Sampling(structured=Structured(kind, value), seed=1)


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        (held(StructuredKind.REGEX, "((("), "response_format"),
        (held(StructuredKind.GRAMMAR, "root ::= ::="), "response_format"),
        (held(StructuredKind.JSON_SCHEMA, {"type": "nonsense"}), "response_format"),
        (held(StructuredKind.CHOICE, []), "response_format"),
        (Sampling(temperature=-1), "temperature"),
        (Sampling(top_p=0), "top_p"),
        (Sampling(top_k=-7), "top_k"),
        (Sampling(min_p=1.5), "min_p"),
        (Sampling(presence_penalty=3), "presence_penalty"),
        (Sampling(repetition_penalty=0), "repetition_penalty"),
        (Sampling(banned=tuple(range(129))), "bad_words"),
        (Sampling(logit_bias={10_000: 1.0}), "logit_bias"),
    ],
)
async def test_a_callers_fault_names_the_field_and_hurts_nobody_else(
    vllm: VllmEngine, sampling: Sampling, param: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        await tokens_of(vllm, PROMPT, sampling)
    assert caught.value.param == param
    assert vllm.running == 0
    await vllm.check()


async def test_a_prompt_that_fills_the_context_is_refused(vllm: VllmEngine) -> None:
    with pytest.raises(UnsupportedError, match="do not fit") as caught:
        await tokens_of(vllm, [40] * vllm.max_context)
    assert caught.value.param == "messages"
    last = await whole(vllm, [40] * (vllm.max_context - 1), GREEDY, 5)
    assert len(last.tokens) == 1


async def test_banned_tokens_are_never_drawn(vllm: VllmEngine) -> None:
    hot = Sampling(temperature=2, ignore_eos=True, seed=3)
    free = await tokens_of(vllm, PROMPT, hot, 200)
    banned = tuple(sorted(set(free))[:100])
    drawn = await tokens_of(vllm, PROMPT, hot.but(banned=banned), 400)
    assert len(drawn) == 400
    assert not set(drawn) & set(banned)


@pytest.mark.parametrize("seed", range(4))
async def test_a_schema_gives_json_of_that_schema(vllm: VllmEngine, seed: int) -> None:
    sampling = held(StructuredKind.JSON_SCHEMA, SCHEMA).but(seed=seed)
    text = vllm.tokenizer.decode(await tokens_of(vllm, PROMPT, sampling, 200))
    jsonschema.validate(json.loads(text), SCHEMA)


async def test_a_cache_salt_keeps_prefixes_apart(vllm: VllmEngine) -> None:
    async def hits(salt: str | None) -> float:
        before = vllm.figures()["prefix_cache_hits_total"]
        await tokens_of(vllm, [*PROMPT, *PROMPT], GREEDY.but(cache_salt=salt), 2)
        return vllm.figures()["prefix_cache_hits_total"] - before

    assert await hits("one") == 0
    assert await hits("one") >= 64
    assert await hits("two") == 0


async def test_figures_count_what_was_asked_and_sampled(vllm: VllmEngine) -> None:
    before = vllm.figures()
    async with aclosing(vllm.generate(PROMPT, GREEDY, 200)) as stream:
        await anext(stream)
        during = vllm.figures()
    assert during["requests_running"] == 1
    assert 0 < during["kv_cache_usage"] < 1
    await tokens_of(vllm, PROMPT, GREEDY, 30)
    after = vllm.figures()
    assert after["requests_running"] == after["requests_waiting"] == after["kv_cache_usage"] == 0
    assert after["prompt_tokens_total"] - before["prompt_tokens_total"] == 2 * len(PROMPT)
    assert after["generated_tokens_total"] - before["generated_tokens_total"] >= 31


async def test_the_same_seed_draws_the_same_in_any_company(vllm: VllmEngine) -> None:
    hot = Sampling(temperature=1.5, ignore_eos=True, seed=11)
    alone = await tokens_of(vllm, PROMPT, hot, 40)
    company = [
        tokens_of(vllm, PROMPT[i:], GREEDY if i % 3 == 0 else hot.but(seed=None), 40)
        for i in range(12)
    ]
    together, *_ = await asyncio.gather(tokens_of(vllm, PROMPT, hot, 40), *company)
    assert together == alone
    assert await tokens_of(vllm, PROMPT, hot.but(seed=12), 40) != alone


def any_sampling(rng: random.Random) -> Sampling:
    """Random parameters, all of them allowed."""
    forms = (
        None,
        None,
        Structured(StructuredKind.JSON_OBJECT),
        Structured(StructuredKind.REGEX, "[a-c]{3,40}"),
        Structured(StructuredKind.CHOICE, ["yes", "no"]),
    )
    return Sampling(
        temperature=rng.choice((0.0, 0.3, 1.0, 2.0)),
        top_p=rng.choice((1.0, 0.9, 0.1)),
        top_k=rng.choice((0, 1, 20)),
        min_p=rng.choice((0.0, 0.05)),
        presence_penalty=rng.choice((0.0, 0.0, 1.0)),
        frequency_penalty=rng.choice((0.0, 0.0, -1.0)),
        repetition_penalty=rng.choice((1.0, 1.0, 1.2)),
        seed=rng.choice((None, rng.randrange(2**32))),
        ignore_eos=rng.random() < 0.7,
        min_tokens=rng.choice((0, 0, 5)),
        logit_bias=rng.choice(({}, {65: -100.0, 66: 5.0})),
        banned=rng.choice(((), (70, 71))),
        logprobs=rng.choice((None, None, 0, 3)),
        structured=rng.choice(forms),
        cache_salt=rng.choice((None, None, "s")),
    )


async def test_a_mixed_load_with_cancellations_leaves_a_working_engine(vllm: VllmEngine) -> None:
    """Seeded, free and greedy rows, grammars and penalties, many given up at any moment."""
    rng = random.Random(5)
    ended: list[Whole | None] = []

    async def one(prompt: list[int], sampling: Sampling, limit: int, patience: float) -> None:
        await asyncio.sleep(rng.random() * 3)
        try:
            async with asyncio.timeout(patience):
                ended.append(await whole(vllm, prompt, sampling, limit))
        except TimeoutError:
            ended.append(None)

    before = await tokens_of(vllm, PROMPT, GREEDY)
    async with asyncio.TaskGroup() as group:
        for _ in range(200):
            prompt = [rng.randrange(32, 120) for _ in range(rng.randrange(1, 300))]
            patience = rng.choice((60.0, 60.0, rng.random(), 0.001))
            sampling = any_sampling(rng)
            group.create_task(one(prompt, sampling, rng.randrange(1, 120), patience))
    assert len(ended) == 200
    assert 30 < ended.count(None) < 170
    assert await freed(vllm)
    await vllm.check()
    assert await tokens_of(vllm, PROMPT, GREEDY) == before
    assert vllm.figures()["requests_running"] == 0
