"""The ensemble in vLLM says what its members say alone, and what the slow ensemble says by rule.

Everything in float32 at temperature 0; texts that part at a near-tie agree as well and are counted.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from engines import reference as reference_kind
from engines.base import Engine
from engines.registry import build
from engines.vllm.ensemble.engine import VllmEnsemble
from tests.engines.vllm.ensemble.calls import Ruled, prompts, ruled, same, under
from tests.policies import ENGINE_ARGS, MEMBERS, RULES, ensemble_spec

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]
PROMPTS, LIMIT, MOST_TIES = 50, 40, 2
MIXED = (None, *RULES, "only")


async def all_of(engine: Engine, name: str | None, count: int = PROMPTS) -> list[Ruled]:
    sampling = under(name)
    return list(await asyncio.gather(*(ruled(engine, ids, sampling) for ids in prompts(count))))


@pytest.mark.parametrize("member", MEMBERS)
async def test_only_one_member_is_that_model_alone(
    ensemble: Engine, policies: Path, member: str
) -> None:
    alone = reference_kind.build("alone", {"kind": "reference", "model": str(policies / member)})
    await alone.start()
    sampling = under("only", policy=member)
    ties = 0
    for ids in prompts(8):
        fast, slow = await ruled(ensemble, ids, sampling), await ruled(alone, ids, under(None))
        ties += not same(replace(fast, choices=[]), slow)
        assert {(choice.policy, choice.degraded) for choice in fast.choices} == {(member, None)}
        said = [entry.logprob for entry in fast.logprobs]
        if fast.tokens == slow.tokens:
            assert said == pytest.approx([entry.logprob for entry in slow.logprobs], abs=1e-4)
    await alone.stop()
    assert ties <= MOST_TIES, f"{ties} near-ties in 8 texts"


# Not the first member: that one speaks where a rule fails.
@pytest.mark.parametrize("member", ["prose", "base"])
async def test_only_one_member_is_its_own_vllm_engine(
    ensemble: Engine, policies: Path, member: str
) -> None:
    spec = {"kind": "vllm", "model": str(policies / member), "engine_args": ENGINE_ARGS}
    vllm = build("alone", spec)
    await vllm.start()
    sampling = under("only", policy=member)
    fast = await asyncio.gather(*(ruled(ensemble, ids, sampling) for ids in prompts(16)))
    own = await asyncio.gather(*(ruled(vllm, ids, under(None)) for ids in prompts(16)))
    await vllm.stop()
    told = [choice for one in fast for choice in one.choices]
    assert {(choice.policy, bool(choice.degraded)) for choice in told} == {(member, False)}
    ties = sum(not same(replace(a, choices=[]), b) for a, b in zip(fast, own, strict=True))
    assert ties <= MOST_TIES, f"{ties} near-ties in 16 texts"


@pytest.mark.parametrize("name", RULES)
async def test_a_rule_says_what_the_slow_ensemble_says(
    ensemble: Engine, reference_ensemble: Engine, name: str
) -> None:
    fast = await all_of(ensemble, name)
    slow = await all_of(reference_ensemble, name)
    ties = sum(not same(a, b) for a, b in zip(fast, slow, strict=True))
    assert ties <= MOST_TIES, f"{ties} near-ties in {PROMPTS} texts"
    for a, b in zip(fast, slow, strict=True):
        if a.tokens != b.tokens:
            continue
        assert [choice.policy for choice in a.choices] == [choice.policy for choice in b.choices]
        assert not any(choice.degraded for choice in a.choices)
        said, wanted = ([entry.logprob for entry in one.logprobs] for one in (a, b))
        assert said == pytest.approx(wanted, abs=1e-3)


async def mixed(engine: Engine, count: int, seed: int = 1) -> list[Ruled]:
    """Rules in turn, all at once."""
    asked = [
        under(name, **({"policy": "prose"} if name == "only" else {}))
        for name in (MIXED[i % len(MIXED)] for i in range(count))
    ]
    pairs = zip(prompts(count, seed), asked, strict=True)
    return list(await asyncio.gather(*(ruled(engine, ids, one) for ids, one in pairs)))


async def test_rules_share_a_batch(ensemble: Engine, reference_ensemble: Engine) -> None:
    fast, slow = await mixed(ensemble, 36), await mixed(reference_ensemble, 36)
    assert sum(not same(a, b) for a, b in zip(fast, slow, strict=True)) <= MOST_TIES


async def test_aborts_disturb_nobody(ensemble: Engine, reference_ensemble: Engine) -> None:
    draw, names = random.Random(4), tuple(RULES)

    async def leaves(at: int) -> None:
        sampling = under(names[at % len(names)])
        source = ensemble.generate(prompts(60, 3)[at], sampling, 200)
        wanted = draw.randrange(30)
        async with aclosing(source) as deltas:
            async for _ in deltas:
                wanted -= 1
                if wanted < 0:
                    return

    leaving = [asyncio.create_task(leaves(at)) for at in range(60)]
    for task in leaving[::4]:
        asyncio.get_running_loop().call_later(draw.random() / 2, task.cancel)
    fast = await mixed(ensemble, 24, seed=7)
    await asyncio.gather(*leaving, return_exceptions=True)
    slow = await mixed(reference_ensemble, 24, seed=7)
    assert sum(not same(a, b) for a, b in zip(fast, slow, strict=True)) <= MOST_TIES
    assert ensemble.running == 0
    assert isinstance(ensemble, VllmEnsemble)
    assert ensemble.traced == 0


@pytest.fixture(scope="module")
async def cramped(policies: Path) -> AsyncIterator[Engine]:
    """An ensemble whose prompts come in pieces and whose cache holds two texts of full length."""
    spec = ensemble_spec(
        "ensemble", policies, enable_chunked_prefill=True, max_num_batched_tokens=48,
        num_gpu_blocks_override=32, max_num_seqs=16, enable_prefix_caching=False,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        # On a CPU pieces are refused since seeds would end the engine; nothing here has a seed.
        patch.setattr("engines.vllm.spec._refuse_seeds_with_chunks", lambda given: None)
        engine = build("cramped", spec)
        await engine.start()
    yield engine
    await engine.stop()


async def test_preempted_and_in_pieces_it_says_the_same(
    cramped: Engine, reference_ensemble: Engine
) -> None:
    draw, names = random.Random(8), tuple(RULES)
    texts = [[draw.randrange(32, 120) for _ in range(draw.randrange(60, 110))] for _ in range(16)]

    async def every(engine: Engine) -> list[Ruled]:
        pairs = ((ids, under(names[i % len(names)])) for i, ids in enumerate(texts))
        return list(await asyncio.gather(*(ruled(engine, ids, one) for ids, one in pairs)))

    fast, slow = await every(cramped), await every(reference_ensemble)
    assert cramped.figures()["preemptions_total"] > 0
    assert sum(not same(a, b) for a, b in zip(fast, slow, strict=True)) <= MOST_TIES
