"""The engine against the published loops, one request at a time; then together, ended, refused."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from engines.base import (
    EngineDeadError,
    EngineError,
    Finish,
    Sampling,
    Schedule,
    Unmasked,
    UnsupportedError,
)
from engines.diffusion.engine import DiffusionEngine, build
from engines.diffusion.rules import RULES
from tests.contracts.engine_calls import freed
from tests.fakes.canvases import Network, slow_dream, slow_llada, started
from tests.fakes.slow_canvas import Slow
from tests.waiting import until

PROMPTS = ([5, 77, 130, 9, 41], [18, 200, 3, 99, 61, 88, 90], [33, 12])
NUMBERS: dict[str, dict[str, float]] = {
    "threshold": {"threshold": 0.4},
    "factor": {"factor": 1.2},
    "entropy_bound": {"gamma": 3.0},
    "edit": {"threshold": 0.4, "edit": 0.1},
}


@dataclass
class Filled:
    """A whole generation."""

    tokens: list[int] = field(default_factory=list)
    deltas: list[list[int]] = field(default_factory=list)
    forwards: int = 0
    beyond: int = 0
    order: list[Unmasked] = field(default_factory=list)
    nll: float | None = None
    finish: Finish | None = None


def plan(rule: str = "confidence", **changes: Any) -> Schedule:
    fields: dict[str, Any] = {"length": 16, "block": 8, "steps": 8, "early_stop": False}
    return Schedule(rule=rule, numbers=NUMBERS.get(rule, {}), **{**fields, **changes})


async def filled(
    engine: DiffusionEngine, prompt: Sequence[int], schedule: Schedule, limit: int = 999,
    **sampling: Any,
) -> Filled:  # fmt: skip
    """Runs one canvas; ends of sequence are tokens like others unless asked otherwise."""
    sampling = {"temperature": 0.0, "ignore_eos": True, **sampling}
    found = Filled()
    async for delta in engine.generate(prompt, Sampling(schedule=schedule, **sampling), limit):
        assert found.finish is None
        found.tokens += delta.tokens
        found.deltas.append(list(delta.tokens))
        found.forwards += delta.forwards
        found.finish = delta.finish
        if delta.fill is not None:
            found.beyond += delta.fill.beyond
            found.order += delta.fill.order
            found.nll = delta.fill.nll
    return found


def slow(engine: DiffusionEngine, network: Network, prompt: Sequence[int], **fields: Any) -> Slow:
    given = {"length": 16, "block": 8, "steps": 8, **fields}
    given.setdefault("numbers", NUMBERS.get(given.get("rule", ""), {}))
    mask = engine.tokenizer.hf.mask_token_id
    return Slow(network, prompt, mask, **given)


@pytest.fixture(scope="session")
def llada_slow(llada_folder: Path) -> Network:
    return slow_llada(llada_folder)


@pytest.fixture(scope="session")
def dream_slow(dream_folder: Path) -> Network:
    return slow_dream(dream_folder)


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("block", [4, 16])
async def test_greedy_is_the_published_loop(
    rule: str, block: int, llada: DiffusionEngine, llada_slow: Network
) -> None:
    """Tokens, their order and the number of forward passes, several requests at once."""
    oracles = [slow(llada, llada_slow, p, rule=rule, block=block, seed=4) for p in PROMPTS]
    schedule = plan(rule, block=block, record=True)
    found = await asyncio.gather(*(filled(llada, p, schedule, seed=4) for p in PROMPTS))
    for one, oracle in zip(found, oracles, strict=True):
        assert one.tokens == oracle.run()
        assert one.forwards == oracle.forwards
        ordered = [u.position for u in one.order if u.token is not None]
        assert sorted(ordered) == sorted(oracle.order)


@pytest.mark.parametrize("rule", ["confidence", "margin", "entropy", "origin", "threshold"])
async def test_dream_is_its_published_loop(
    rule: str, dream: DiffusionEngine, dream_slow: Network
) -> None:
    for prompt in PROMPTS[:2]:
        oracle = slow(dream, dream_slow, prompt, rule=rule, dream=True, block=16, seed=2)
        found = await filled(dream, prompt, plan(rule, block=16), seed=2)
        assert found.tokens == oracle.run()
        assert found.forwards == oracle.forwards


@pytest.mark.parametrize("rule", ["confidence", "threshold", "saber", "edit"])
@pytest.mark.parametrize("kind", ["llada", "dream"])
async def test_sampling_is_the_published_loop_with_keyed_noise(
    rule: str, kind: str, request: pytest.FixtureRequest
) -> None:
    engine, network = request.getfixturevalue(kind), request.getfixturevalue(f"{kind}_slow")
    texts = set()
    for seed in (1, 2, 3):
        oracle = slow(
            engine, network, PROMPTS[0], rule=rule, temperature=0.9, seed=seed,
            dream=kind == "dream",
        )  # fmt: skip
        found = await filled(engine, PROMPTS[0], plan(rule), temperature=0.9, seed=seed)
        assert found.tokens == oracle.run()
        texts.add(tuple(found.tokens))
    assert len(texts) == 3


async def test_guidance_mixes_in_the_masked_prompt(
    llada: DiffusionEngine, llada_slow: Network
) -> None:
    oracle = slow(llada, llada_slow, PROMPTS[1], guidance=1.5)
    found = await filled(llada, PROMPTS[1], plan(guidance=1.5))
    assert found.tokens == oracle.run()
    assert found.forwards == oracle.forwards == 16
    assert found.tokens != (await filled(llada, PROMPTS[1], plan())).tokens


@pytest.mark.parametrize("temperature", [0.0, 0.9])
async def test_end_tokens_come_last_at_any_temperature(
    temperature: float, llada: DiffusionEngine, llada_slow: Network
) -> None:
    eos = llada.tokenizer.eos_id
    assert eos is not None
    bias = {eos: 8.0}
    own: dict[str, Any] = {"temperature": temperature, "seed": 3, "block": 16}
    asked: dict[str, Any] = {
        "temperature": temperature,
        "seed": 3,
        "logit_bias": bias,
        "stop_token_ids": (eos,),
    }
    ends = {}
    for when, late in (("free", None), ("last", eos)):
        oracle = slow(llada, llada_slow, PROMPTS[0], late=late, bias=bias, **own)
        whole = oracle.run()
        found = await filled(llada, PROMPTS[0], plan(block=16, eos=when, record=True), **asked)
        assert found.tokens == whole[: whole.index(eos) + 1]
        assert [u.position for u in found.order] == oracle.order
        ends[when] = [u.step for u in found.order if u.token == eos]
    assert ends["free"][0] == 0 < ends["last"][0]
    never = await filled(llada, PROMPTS[0], plan(eos="never"), **{**asked, "logit_bias": {}})
    assert eos not in never.tokens


@pytest.mark.parametrize(("block", "steps"), [(16, 16), (8, 4), (4, 8), (16, 3), (2, 8)])
async def test_counted_steps_are_forward_passes(
    block: int, steps: int, llada: DiffusionEngine
) -> None:
    found = await filled(llada, PROMPTS[0], plan(block=block, steps=steps, record=True))
    assert found.forwards == steps
    per_step = [sum(u.step == i for u in found.order) for i in range(steps)]
    each, rest = divmod(block, steps * block // 16)
    assert per_step == [each + (i % (steps * block // 16) < rest) for i in range(steps)]
    for u in found.order:  # nothing right of the block at hand
        assert u.position // block == u.step // (steps * block // 16)


@pytest.mark.parametrize("rule", sorted(RULES))
async def test_the_mask_token_is_never_committed(rule: str, llada: DiffusionEngine) -> None:
    mask = llada.tokenizer.hf.mask_token_id
    liked = await filled(llada, PROMPTS[2], plan(rule), logit_bias={mask: 60.0}, seed=1)
    assert mask not in liked.tokens
    assert len(liked.tokens) == 16


@pytest.mark.parametrize("cache", ["prefix", "dual"])
async def test_a_cache_that_is_always_fresh_changes_nothing(
    cache: str, llada: DiffusionEngine, dream: DiffusionEngine
) -> None:
    """One step per block: every pass is a refresh. Then a second one that uses it."""
    for engine in (llada, dream):
        schedule = plan(block=4, steps=4, style="llada")
        plain = await filled(engine, PROMPTS[0], schedule)
        same = await filled(engine, PROMPTS[0], replace(schedule, cache=cache))
        assert same.tokens == plain.tokens
        assert same.forwards == plain.forwards == 4
        used = await filled(engine, PROMPTS[0], plan(cache=cache, steps=16, style="llada"))
        assert len(used.tokens) == used.forwards == 16


async def test_a_cached_path_sees_what_its_own_block_became(llada: DiffusionEngine) -> None:
    """With one block the dual cache lacks nothing of the canvas; only the prompt's keys age."""
    exact = await filled(llada, PROMPTS[0], plan(block=16, steps=16))
    cached = await filled(llada, PROMPTS[0], plan(block=16, steps=16, cache="dual", refresh=1))
    alike = sum(a == b for a, b in zip(exact.tokens, cached.tokens, strict=True))
    assert alike >= 12


async def test_companions_change_nothing(llada: DiffusionEngine) -> None:
    """Prompts, lengths, blocks, rules, temperatures and caches of every sort at once."""
    caches, heats = ["none", "prefix", "dual"], [0.0, 0.7, 1.2]
    jobs: list[tuple[Sequence[int], Schedule, dict[str, Any]]] = []
    for i, rule in enumerate(sorted(RULES)):
        schedule = plan(rule, block=[4, 8, 16][i % 3], cache=caches[i % 3])
        jobs.append((PROMPTS[i % 3], schedule, {"temperature": heats[i // 2 % 3], "seed": i}))
    alone = [await filled(llada, p, s, **k) for p, s, k in jobs]

    async def later(turn: int, p: Sequence[int], s: Schedule, k: dict[str, Any]) -> Filled:
        await asyncio.sleep(0.003 * (turn % 4))
        return await filled(llada, p, s, **k)

    together = await asyncio.gather(*(later(i, *job) for i, job in enumerate(jobs)))
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert [one.forwards for one in together] == [one.forwards for one in alone]


async def test_paths_share_forward_passes(llada: DiffusionEngine) -> None:
    before = llada.figures()["forwards"]
    await asyncio.gather(*(filled(llada, p, plan()) for p in PROMPTS * 4))
    assert llada.figures()["forwards"] - before <= 8 + 2


async def test_few_rows_make_the_others_wait(llada_folder: Path, llada: DiffusionEngine) -> None:
    narrow = await started(llada_folder, rows=2)
    try:
        found = await asyncio.gather(*(filled(narrow, p, plan(), seed=1) for p in PROMPTS))
        expected = await asyncio.gather(*(filled(llada, p, plan(), seed=1) for p in PROMPTS))
        assert [one.tokens for one in found] == [one.tokens for one in expected]
        assert narrow.figures()["forwards"] == 16
    finally:
        await narrow.stop()


async def test_an_answer_ends_at_its_first_end_token(llada: DiffusionEngine) -> None:
    whole = await filled(llada, PROMPTS[0], plan(block=16, record=True))
    end = whole.tokens[5]
    at = whole.tokens.index(end)
    asked: dict[str, Any] = {"stop_token_ids": (end,)}
    late = await filled(llada, PROMPTS[0], plan(block=16), **asked)
    early = await filled(llada, PROMPTS[0], plan(block=16, early_stop=True), **asked)
    assert late.tokens == early.tokens == whole.tokens[: at + 1]
    assert late.finish is early.finish is Finish.STOP
    assert late.forwards == whole.forwards
    settled = max(u.step for u in whole.order if u.position <= at)
    assert early.forwards == settled + 1
    assert late.beyond == 16 - (at + 1)
    assert early.beyond == sum(u.step <= settled for u in whole.order) - (at + 1)


@pytest.mark.parametrize("limit", [1, 5, 8, 11])
@pytest.mark.parametrize("rule", ["confidence", "saber_code", "edit", "threshold"])
async def test_the_limit_holds_to_the_token(limit: int, rule: str, llada: DiffusionEngine) -> None:
    found = await filled(llada, PROMPTS[1], plan(rule), limit)
    assert len(found.tokens) == limit
    assert found.beyond == 0
    assert found.finish is Finish.LENGTH


async def test_deltas_are_the_committed_prefix_or_whole_blocks(llada: DiffusionEngine) -> None:
    grown = await filled(llada, PROMPTS[0], plan(block=4, steps=16))
    blocks = await filled(llada, PROMPTS[0], plan(block=4, steps=16, whole_blocks=True))
    assert grown.tokens == blocks.tokens
    assert [len(tokens) for tokens in blocks.deltas] == [4, 4, 4, 4]
    assert len(grown.deltas) > 4
    corrected = await filled(llada, PROMPTS[0], plan("saber", block=4))
    assert [len(tokens) for tokens in corrected.deltas] == [4, 4, 4, 4]


async def test_the_estimate_is_of_the_first_pass(
    llada: DiffusionEngine, llada_slow: Network
) -> None:
    found = await filled(llada, PROMPTS[0], plan(estimate=True))
    assert found.tokens == (await filled(llada, PROMPTS[0], plan())).tokens
    mask = llada.tokenizer.hf.mask_token_id
    logits = llada_slow([*PROMPTS[0], *[mask] * 16])[5:].double()
    expected = -logits.log_softmax(-1)[range(16), found.tokens].mean()
    assert found.nll == pytest.approx(float(expected), rel=1e-4)


async def test_filters_leave_the_likeliest(llada: DiffusionEngine) -> None:
    greedy = await filled(llada, PROMPTS[0], plan(steps=16))
    for one in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert (await filled(llada, PROMPTS[0], plan(steps=16), temperature=1.0, **one)).tokens == (
            greedy.tokens
        )


async def test_banned_tokens_are_never_drawn(llada: DiffusionEngine) -> None:
    first = await filled(llada, PROMPTS[0], plan())
    banned = tuple(set(first.tokens))
    again = await filled(llada, PROMPTS[0], plan(), banned=banned, temperature=1.0, seed=1)
    assert not set(again.tokens) & set(banned)


async def test_leaving_frees_the_rows(llada: DiffusionEngine) -> None:
    sampling = Sampling(
        temperature=0, ignore_eos=True, schedule=plan(length=128, block=4, steps=128)
    )
    before = llada.figures()["forwards"]
    async with aclosing(llada.generate(PROMPTS[0], sampling, 128)) as deltas:
        await anext(deltas)
        assert llada.running == 1
    assert llada.running == 0
    task = asyncio.create_task(filled(llada, PROMPTS[1], sampling.schedule or plan()))
    await until(lambda: llada.running == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await freed(llada)
    await asyncio.sleep(0.05)
    after = llada.figures()["forwards"]
    await asyncio.sleep(0.1)
    assert llada.figures()["forwards"] == after < before + 128


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"block": 5}, "block"),
        ({"block": 0}, "block"),
        ({"steps": 17}, "steps"),
        ({"steps": 3}, "steps"),
        ({"steps": 0}, "steps"),
        ({"length": 0}, "length"),
        ({"length": 512, "block": 8, "steps": 512}, "length"),
        ({"cache": "all"}, "cache"),
        ({"eos": "first"}, "eos"),
        ({"style": "sedd"}, "style"),
        ({"refresh": 0}, "refresh"),
        ({"rule": "best"}, "rule"),
        ({"rule": "threshold", "numbers": {"threshold": 1.5}}, "threshold"),
        ({"numbers": {"gamma": 1.0}}, "gamma"),
    ],
)
async def test_a_schedule_that_does_not_add_up_is_refused(
    changes: dict[str, Any], param: str, llada: DiffusionEngine
) -> None:
    fields = {"length": 16, "block": 8, "steps": 8, **changes}
    with pytest.raises(UnsupportedError) as caught:
        await filled(llada, PROMPTS[0], Schedule(**fields))
    assert caught.value.param == param
    assert llada.running == 0


async def test_what_it_cannot_do_it_refuses(llada: DiffusionEngine) -> None:
    async def asked(**sampling: Any) -> None:
        async for _ in llada.generate(PROMPTS[0], Sampling(**sampling), 4):
            pass

    for sampling in ({}, {"logprobs": 1}, {"presence_penalty": 1.0}, {"min_tokens": 3}):
        schedule = {} if not sampling else {"schedule": plan()}
        with pytest.raises(UnsupportedError):
            await asked(**sampling, **schedule)
    everything = {token: float("-inf") for token in range(len(llada.tokenizer))}
    with pytest.raises(UnsupportedError) as caught:
        await asked(schedule=plan(), logit_bias=everything)
    assert caught.value.param == "logit_bias"
    for prefix, limit in (([], 1), (PROMPTS[0], 0)):
        with pytest.raises(ValueError, match=r"prefix|limit"):
            await anext(llada.generate(prefix, Sampling(schedule=plan()), limit))
    with pytest.raises(UnsupportedError, match="vocabulary"):
        await anext(llada.generate([10_000], Sampling(schedule=plan()), 1))
    assert llada.running == 0
    for call in (llada.score([1], [2]), llada.next_logprobs([1], 3)):
        with pytest.raises(UnsupportedError):
            await call


async def test_it_stops_and_says_so(llada_folder: Path, tmp_path: Path) -> None:
    engine = await started(llada_folder)
    task = asyncio.create_task(filled(engine, PROMPTS[0], plan(length=128, block=8, steps=128)))
    await until(lambda: engine.running == 1)
    await engine.stop()
    with pytest.raises(EngineDeadError):
        await task
    with pytest.raises(EngineDeadError):
        await engine.check()
    missing = build("gone", {"kind": "diffusion", "model": str(tmp_path)})
    with pytest.raises(EngineError, match="gone"):
        await missing.start()
    with pytest.raises(ValueError, match="rows"):
        build("odd", {"kind": "diffusion", "model": "x", "rows": 0})
