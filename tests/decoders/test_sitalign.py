"""SITAlign against its plain loop, its draws against the stated policy, and what it refuses."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from decoders.core.base import Budget, DecodeRequest, RequestError, TraceLevel
from decoders.core.run import estimate
from engines.base import Capability, Sampling
from engines.drawing import log_softmax
from engines.table import TableEngine, spell
from monitors.core.base import Calibration, Monitor
from tests.contracts.test_engine_agreement import SURE, goodness
from tests.decoders.slow_policies import Marks, World, mark, normal, parted, sitalign
from tests.fakes import requests
from tests.fakes.policies import Pool, pool
from tests.fakes.requests import Whole, table, whole

GREEDY = Sampling(temperature=0.0, logprobs=2)
TWO = {"primary": "good", "constrained": ["safe", "short"], "thresholds": [0.5, 0.3]}


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[TableEngine]:
    made = table(script={})
    await made.start()
    yield made
    await made.stop()


def asked(engine: Any, params: dict[str, Any], **fields: Any) -> DecodeRequest:
    known = Calibration("raw", mean=0.5, std=0.25)
    monitors: dict[str, Monitor] = {name: Marks(name, known) for name in ("good", "safe", "short")}
    monitors["bare"] = Marks("bare")
    fields = {"sampling": GREEDY, "max_tokens": 12, "monitors": monitors, "think": None, **fields}
    return requests.request(engine, "sitalign", params, **fields)


def world(engine: TableEngine, asked: DecodeRequest) -> World:
    eos = engine.tokenizer.eos_id or 0
    return World(
        lambda name, prefix: log_softmax(engine.logits(spell(prefix))),
        engine.tokenizer.decode, eos, asked.prompt,
    )  # fmt: skip


def said(result: Whole) -> list[int]:
    return [token for token, _ in result.logprobs]


def steps(result: Whole) -> list[dict[str, Any]]:
    nodes = (result.summary.trace or {})["nodes"]
    return [node for node in nodes if node["kind"] == "token"]


@pytest.mark.parametrize("utility", ["prefix_reward", "rollout"])
async def test_it_says_what_the_plain_loop_says(engine: TableEngine, utility: str) -> None:
    ahead = 3 if utility == "rollout" else 0
    for prompt in ("one", "two words", "three. then"):
        params = {**TWO, "utility": utility, "candidates": 5, "lookahead": 3, "alpha": 0.2}
        one = asked(engine, params, prompt=prompt)
        wanted = sitalign(
            world(engine, one), "", ["good", "safe", "short"], [0.5, 0.3],
            k=5, alpha=0.2, ahead=ahead, steps=12,
        )  # fmt: skip
        result = await whole(one)
        assert not parted(said(result), wanted)
        states = result.summary.fields["states"]
        assert set(states) <= {"satisfied", "violated"}
        assert sum(states.values()) == result.usage.committed_tokens


async def test_draws_follow_the_stated_policy(engine: TableEngine) -> None:
    params = {"utility": "prefix_reward", "primary": "good", "candidates": 6, "alpha": 0.3}
    sampling = Sampling(temperature=1.0, logprobs=0)
    one = asked(engine, params, max_tokens=1, sampling=sampling)
    row = log_softmax(engine.logits(spell(one.prompt)))
    top = world(engine, one).likeliest(row, 6)
    decode = engine.tokenizer.decode
    tilted = {v: float(row[v]) + mark(decode([v]).lstrip(), "good") / 0.3 for v in top}
    stated = normal(tilted, len(row))
    room = asyncio.Semaphore(50)

    async def first(seed: int) -> Whole:
        async with room:
            return await whole(asked(engine, params, max_tokens=1, sampling=sampling, seed=seed))

    found = await asyncio.gather(*map(first, range(600)))
    p = goodness([said(result)[0] for result in found], stated)
    assert p > SURE, f"chi-square p = {p:.2g} over n = {len(found)} draws"
    for result in found[:20]:
        [(token, entry)] = result.logprobs
        assert entry is not None
        assert entry.logprob == pytest.approx(np.log(stated[token]), abs=1e-6)


async def test_expectations_are_kept_or_the_state_is_marked(engine: TableEngine) -> None:
    params = {**TWO, "utility": "prefix_reward", "alpha": 0.5}
    sampling = Sampling(temperature=1.0)
    seen: dict[str, int] = {}
    for seed in range(6):
        one = asked(engine, params, sampling=sampling, seed=seed, trace=TraceLevel.FULL)
        for node in steps(await whole(one)):
            seen[node["state"]] = seen.get(node["state"], 0) + 1
            if node["state"] == "certified":
                assert node["margin"] >= -1e-3 - 1e-9
                assert min(node["multipliers"]) >= 0
    assert seen["certified"] > 10
    assert set(seen) <= {"certified", "infeasible", "unsolved"}
    assert seen.get("unsolved", 0) == 0


async def test_thresholds_may_be_calibrated(engine: TableEngine) -> None:
    raw = {**TWO, "utility": "prefix_reward", "alpha": 0.25}
    scaled = {**raw, "units": "calibrated", "thresholds": [0.0, -0.8], "alpha": 1.0}
    one, two = await whole(asked(engine, raw)), await whole(asked(engine, scaled))
    assert said(one) == said(two)


async def test_the_finished_text_is_judged(engine: TableEngine) -> None:
    params = {**TWO, "utility": "prefix_reward"}
    result = await whole(asked(engine, params))
    fields, text = result.summary.fields, result.content
    assert fields["rewards"] == [mark(text, name) for name in ("good", "safe", "short")]
    assert fields["satisfied"] == [mark(text, "safe") >= 0.5, mark(text, "short") >= 0.3]
    spent = result.usage.monitor_calls
    assert estimate(asked(engine, params)).monitor_calls >= spent
    budget = Budget(max_monitor_calls=spent - 3)
    unjudged = await whole(asked(engine, params, budget=budget))
    assert said(unjudged) == said(result)
    assert "satisfied" not in unjudged.summary.fields


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("block", [1, 4])
async def test_a_stop_string_ends_the_text_that_is_judged(
    engine: TableEngine, block: int, include: bool
) -> None:
    """Also where it ends in the middle of a token or of a block."""
    stops = tuple("aeiou")
    sampling = Sampling(temperature=1.0, logprobs=0, ignore_eos=True)
    params = {**TWO, "utility": "prefix_reward", "block": block}
    fields: dict[str, Any] = {"sampling": sampling, "include_stop": include, "seed": 1}
    one = asked(engine, params, stop=stops, **fields)
    cut = await whole(one)
    assert estimate(one).monitor_calls >= cut.usage.monitor_calls
    assert cut.finish == "stop"
    before = cut.content[:-1] if include else cut.content
    assert before and not set(before) & set(stops)
    scores = [mark(cut.content, name) for name in ("good", "safe", "short")]
    assert cut.summary.fields["rewards"] == scores
    assert cut.summary.fields["satisfied"] == [scores[1] >= 0.5, scores[2] >= 0.3]


async def test_what_draws_a_certified_policy_otherwise_is_told(engine: TableEngine) -> None:
    params = {**TWO, "utility": "prefix_reward"}
    for sampling, told in (
        (Sampling(temperature=0.7, top_p=0.9), {"temperature": 0.7, "top_p": 0.9}),
        (Sampling(temperature=1.0), None),
        (Sampling(temperature=0.0, top_p=0.9), None),
    ):
        result = await whole(asked(engine, params, sampling=sampling, max_tokens=3))
        assert result.summary.fields.get("reshaped_by") == told


async def test_caution_takes_standard_errors_off(engine: TableEngine) -> None:
    """With noisy rollouts the careful choice asks for more than the careless one."""
    params = {**TWO, "candidates": 4, "lookahead": 3, "samples": 3, "alpha": 0.5}
    fields = {"sampling": Sampling(temperature=1.0), "trace": TraceLevel.FULL}
    margins = []
    for z in (0.0, 3.0):
        result = await whole(asked(engine, {**params, "caution": z}, **fields))
        margins.append(steps(result)[0]["margin"])
    assert margins[1] < margins[0]


async def test_blocks_are_drawn_whole(engine: TableEngine) -> None:
    params = {**TWO, "utility": "prefix_reward", "block": 4, "candidates": 4}
    sampling = Sampling(temperature=1.0, logprobs=1)
    one = asked(engine, params, sampling=sampling, trace=TraceLevel.FULL)
    result = await whole(one)
    assert {len(node["tokens"]) for node in steps(result)[:-1]} <= {4}
    assert len(result.logprobs) == result.usage.committed_tokens
    assert result.usage.generated_tokens <= estimate(one).generated_tokens


@pytest.mark.parametrize("block", [1, 3])
async def test_the_full_trace_holds_what_was_proposed(engine: TableEngine, block: int) -> None:
    params = {**TWO, "utility": "prefix_reward", "block": block, "candidates": 4}
    sampling = Sampling(temperature=1.0)
    full = await whole(asked(engine, params, sampling=sampling, trace=TraceLevel.FULL))
    done: list[int] = []
    for node in steps(full):
        assert len(node["proposed"]) <= 4
        for one in node["proposed"]:
            text = engine.tokenizer.decode([*done, *one["tokens"]]).lstrip()
            assert one["scores"] == [mark(text, name) for name in ("good", "safe", "short")]
        [chosen, *_] = [one for one in node["proposed"] if one["tokens"] == node["tokens"]]
        assert chosen["scores"][0] == node["utility"][0]
        done += node["tokens"]


async def test_without_log_probabilities_only_blocks_are_chosen() -> None:
    made = table(script={})
    made.capabilities = frozenset({Capability.GENERATE, Capability.SEED})
    await made.start()
    fields: dict[str, Any] = {"sampling": Sampling(temperature=1.0)}
    with pytest.raises(RequestError) as caught:
        estimate(asked(made, {}, **fields))
    assert caught.value.param == "decoding.params.block"
    blocks = asked(made, {"utility": "prefix_reward", "block": 3}, **fields)
    assert estimate(blocks).rows > 1
    assert (await whole(blocks)).usage.committed_tokens


async def test_over_an_ensemble_the_base_is_tilted() -> None:
    made = pool(script={})
    await made.start()
    monitors: dict[str, Monitor] = {"good": Marks("good")}
    alone = {"utility": "prefix_reward", "candidates": 1}
    tilted = await whole(asked(made, alone, monitors=monitors))
    base = next(one for one in made.others if one.name == "base")
    plain = requests.request(base, sampling=GREEDY, max_tokens=12, think=None)
    assert said(tilted) == said(await whole(plain))
    implicit = {"utility": "implicit", "primary": "wish"}
    ruled = await whole(asked(made, implicit, monitors={}, trace=TraceLevel.FULL))
    assert ruled.usage.engine_requests == 1
    assert ruled.summary.fields["states"] == {"satisfied": ruled.usage.committed_tokens}
    bound = {"constrained": ["wish"], "thresholds": [0.0]}
    for heat in (0.0, 1.0):
        sampling = Sampling(temperature=heat, logprobs=0)
        full = await whole(
            asked(made, {**implicit, **bound}, monitors={}, trace=TraceLevel.FULL,
                  sampling=sampling)
        )  # fmt: skip
        gained = [
            node["advantages"][node["candidates"].index(token)][0]
            for node, token in zip(steps(full), said(full), strict=True)
        ]
        fields = full.summary.fields
        assert fields["rewards"] == pytest.approx([sum(gained)] * 2)
        assert fields["satisfied"] == [sum(gained) >= 0]
        stop = full.content[3]
        cut = await whole(
            asked(made, {**implicit, **bound}, monitors={}, sampling=sampling, stop=(stop,))
        )
        assert cut.finish == "stop" and len(said(cut)) < len(gained)
        kept = sum(gained[: len(said(cut))])
        assert cut.summary.fields["rewards"] == pytest.approx([kept] * 2)
    assert isinstance(made, Pool)
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({**implicit, "constrained": ["wish"], "thresholds": [0.0, 1.0]}, "thresholds"),
        ({**implicit, "constrained": ["nobody"], "thresholds": [0.0]}, "constrained"),
        ({**implicit, "units": "calibrated"}, "units"),
        ({**implicit, "base": "nobody"}, "base"),
        ({"primary": "good", "base": "nobody"}, "base"),
    )
    for params, param in wrong:
        with pytest.raises(RequestError) as caught:
            estimate(asked(made, params, monitors=monitors))
        assert caught.value.param == f"decoding.params.{param}"


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"constrained": ["safe"]}, "thresholds"),
        ({"constrained": ["nobody"], "thresholds": [0.0]}, "constrained.0"),
        ({"primary": "nobody"}, "primary"),
        ({"primary": "bare", "units": "calibrated"}, "units"),
        ({"caution": 1.0}, "caution"),
        ({"base": "first"}, "base"),
        ({"utility": "implicit", "primary": "wish"}, "utility"),
        ({"utility": "implicit"}, "primary"),
        ({"utility": "implicit", "primary": "wish", "block": 2}, "block"),
        ({**TWO, "block": 2}, "block"),
    ],
)
async def test_what_has_no_meaning_is_refused_by_name(
    engine: TableEngine, params: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        estimate(asked(engine, params))
    assert caught.value.param == f"decoding.params.{param}"
