"""Collab against its plain loop over known distributions, and what it costs, notes and refuses."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from decoders.core.base import Budget, DecodeRequest, RequestError, TraceLevel
from decoders.core.choosing import foremost
from decoders.core.run import estimate
from engines.base import Capability, Sampling
from engines.drawing import log_softmax
from engines.table import spell
from monitors.core.base import Monitor
from tests.decoders.slow_policies import Marks, World, collab, mark, parted
from tests.fakes import requests
from tests.fakes.monitors import Told
from tests.fakes.policies import FaultyPool, Pool, pool
from tests.fakes.requests import Whole, table, whole

AGENTS = ["first", "second", "third"]
GREEDY = Sampling(temperature=0.0, logprobs=2)


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[Pool]:
    made = pool(script={})
    await made.start()
    yield made
    await made.stop()


def asked(engine: Any, params: dict[str, Any], **fields: Any) -> DecodeRequest:
    monitors: dict[str, Monitor] = {"marks": Marks("marks")}
    fields = {"sampling": GREEDY, "max_tokens": 14, "monitors": monitors, "think": None, **fields}
    return requests.request(engine, "collab", {"skip_agreed": None, **params}, **fields)


def world(engine: Pool, asked: DecodeRequest) -> World:
    tables = {"first": engine, **{one.name: one for one in engine.others}}
    decode = engine.tokenizer.decode
    eos = engine.tokenizer.eos_id or 0
    return World(
        lambda name, prefix: log_softmax(tables[name].logits(spell(prefix))),
        decode,
        eos,
        asked.prompt,
    )


def said(result: Whole) -> list[int]:
    return [token for token, _ in result.logprobs]


FORMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"utility": "rollout", "lookahead": 4}, {"ahead": 4}),
    ({"utility": "prefix_reward"}, {"ahead": 0}),
    ({"utility": "prefix_reward", "plausible": 0.0}, {"ahead": 0, "plausible": 0.0}),
    ({"utility": "prefix_reward", "plausible": 0.7}, {"ahead": 0, "plausible": 0.7}),
    ({"utility": "prefix_reward", "reference": "base"}, {"ahead": 0, "reference": "base"}),
    ({"utility": "rollout", "lookahead": 2, "kl": "token"}, {"ahead": 2, "token_form": True}),
]


@pytest.mark.parametrize(("params", "slow"), FORMS, ids=str)
@pytest.mark.parametrize("alpha", [0.0, 0.4])
async def test_it_says_what_the_plain_loop_says(
    engine: Pool, params: dict[str, Any], slow: dict[str, Any], alpha: float
) -> None:
    for prompt in ("one", "two words", "three. then"):
        one = asked(engine, {**params, "candidates": 3, "alpha": alpha}, prompt=prompt)
        result = await whole(one)
        wanted = collab(world(engine, one), AGENTS, "marks", p=3, alpha=alpha, steps=14, **slow)
        assert not parted(said(result), wanted)


async def test_rollouts_are_counted_to_the_token(engine: Pool) -> None:
    monitor = Marks("marks")
    params = {"candidates": 2, "lookahead": 3, "agents": ["first", "second"]}
    one = asked(engine, params, max_tokens=5, monitors={"marks": monitor}, trace=TraceLevel.FULL)
    result = await whole(one)
    fields, usage = result.summary.fields, result.usage
    steps = usage.committed_tokens
    assert fields["rollouts"] <= 4 * steps
    assert fields["rollout_tokens"] <= 3 * fields["rollouts"]
    assert usage.generated_tokens == steps + fields["rollout_tokens"]
    assert usage.monitor_calls == monitor.calls == fields["scored"] == 4 * steps
    assert usage.engine_requests == steps + fields["rollouts"]
    assert sum(fields["policies"].values()) == steps
    known = estimate(one)
    assert usage.generated_tokens <= known.generated_tokens
    assert usage.monitor_calls <= known.monitor_calls
    assert usage.engine_requests <= known.engine_requests
    nodes = [node for node in (result.summary.trace or {})["nodes"] if node["kind"] == "token"]
    assert [node["tokens"] for node in nodes] == [[token] for token in said(result)]
    assert {node["policy"] for node in nodes} <= {"first", "second"}
    assert all(node["kl"] >= 0 for node in nodes)


def test_what_differs_by_a_rounding_is_a_tie_for_the_first() -> None:
    assert foremost([0.5, 0.9, 0.9 + 1e-6]) == 1
    assert foremost([0.5, 0.9, 0.9 + 1e-3]) == 2


async def test_where_all_agree_nothing_is_estimated(engine: Pool) -> None:
    same = {"agents": ["first"], "candidates": 2, "utility": "prefix_reward"}
    monitor = Marks("marks")
    one = asked(engine, {**same, "skip_agreed": 1e-9}, monitors={"marks": monitor})
    plain = await whole(requests.request(engine, sampling=GREEDY, max_tokens=14, think=None))
    assert said(await whole(one)) == said(plain)
    assert monitor.calls == 0
    two = asked(engine, {**same, "agents": AGENTS, "skip_agreed": 1.0}, monitors={"m": monitor})
    await whole(two)
    assert monitor.calls > 0


async def test_blocks_of_one_token_are_judged_all_the_same(engine: Pool) -> None:
    """What is left may be one token; how likely it was says nothing of a block."""
    params = {"block": 4, "candidates": 3, "utility": "prefix_reward", "skip_agreed": 1e-9}
    monitor = Marks("marks")
    sampling = Sampling(temperature=1.0)
    await whole(asked(engine, params, sampling=sampling, max_tokens=1, monitors={"marks": monitor}))
    assert monitor.calls > 0


async def test_one_agent_does_not_diverge_from_itself(engine: Pool) -> None:
    alone = {"agents": ["first"], "candidates": 3, "utility": "prefix_reward", "kl": "token"}
    free = await whole(asked(engine, {**alone, "alpha": 0.0}))
    held = await whole(asked(engine, {**alone, "alpha": 5.0}))
    assert said(held) == said(free)


async def test_blocks_are_longer_candidates(engine: Pool) -> None:
    params = {"block": 4, "candidates": 3, "utility": "prefix_reward", "reference": "mixture"}
    sampling = Sampling(temperature=1.0, logprobs=0)
    one = asked(engine, params, sampling=sampling, trace=TraceLevel.FULL)
    result = await whole(one)
    nodes = [node for node in (result.summary.trace or {})["nodes"] if node["kind"] == "token"]
    widths = [len(node["tokens"]) for node in nodes]
    assert max(widths[:-1], default=4) == 4
    assert sum(widths) == result.usage.committed_tokens
    assert result.summary.held_back == max(widths)
    assert any(node["kl"] > 0 for node in nodes)
    assert result.usage.generated_tokens <= estimate(one).generated_tokens


async def test_one_agent_and_one_candidate_is_greedy(engine: Pool) -> None:
    one = asked(engine, {"agents": ["first"], "candidates": 1})
    plain = requests.request(engine, sampling=GREEDY, max_tokens=14, think=None)
    result = await whole(one)
    assert said(result) == said(await whole(plain))
    assert result.usage.monitor_calls == 0


async def test_branches_that_are_counted_run_in_turn(engine: Pool) -> None:
    params = {"candidates": 2, "lookahead": 3}
    free, held = asked(engine, params), asked(engine, params, budget=Budget(max_branches=1))
    one, two = await whole(free), await whole(held)
    assert said(one) == said(two)
    assert (two.summary.branches, estimate(held).rows) == (0, 1)
    assert one.summary.branches > 0


async def test_what_only_scores_opens_no_branch(engine: Pool) -> None:
    params = {"candidates": 2, "utility": "prefix_reward"}
    one = asked(engine, params, budget=Budget(max_branches=1))
    result = await whole(one)
    assert (result.summary.branches, estimate(asked(engine, params)).rows) == (0, 1)
    assert said(result) == said(await whole(asked(engine, params)))


async def test_implicit_is_the_engines_own_rule(engine: Pool) -> None:
    params = {"utility": "implicit", "target": "wish", "candidates": 4}
    result = await whole(asked(engine, params, trace=TraceLevel.FULL))
    assert result.usage.monitor_calls == 0
    assert result.usage.engine_requests == 1
    assert sum(result.summary.fields["policies"].values()) == result.usage.committed_tokens
    nodes = (result.summary.trace or {})["nodes"]
    assert all({"policy", "utility", "kl", "best"} <= set(node) for node in nodes)


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"reference": "none"}, "reference"),
        ({"reference": "nobody"}, "reference"),
        ({"agents": ["first", "nobody"]}, "agents"),
        ({"agents": ["first", "first"]}, "agents"),
        ({"target": "nobody"}, "target"),
        ({"utility": "implicit"}, "target"),
        ({"utility": "implicit", "target": "nobody"}, "target"),
        ({"utility": "implicit", "target": "wish", "kl": "token"}, "kl"),
        ({"utility": "implicit", "target": "wish", "block": 4}, "block"),
        ({"kl": "token", "block": 4}, "kl"),
    ],
)
async def test_what_has_no_meaning_is_refused_by_name(
    engine: Pool, params: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        estimate(asked(engine, params))
    assert caught.value.param == f"decoding.params.{param}"


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"agents": ["first"]}, "agents"),
        ({"reference": "base"}, "reference"),
        ({"utility": "implicit", "target": "wish"}, "utility"),
    ],
)
async def test_without_members_none_may_be_named(params: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        estimate(asked(table(), params))
    assert caught.value.param == f"decoding.params.{param}"


async def test_where_rules_fail_the_first_member_speaks_and_it_is_told() -> None:
    faulty, whole_one = FaultyPool(), pool(script={})
    await faulty.start()
    await whole_one.start()
    for bias in ({}, {said(await whole(asked(faulty, {})))[0]: -100.0}):
        sampling = GREEDY.but(logit_bias=bias)
        result = await whole(asked(faulty, {"utility": "prefix_reward"}, sampling=sampling))
        assert (result.summary.outcome, result.summary.reason) == ("degraded", "out of order")
        first = requests.request(whole_one, "plain", max_tokens=14, sampling=sampling, think=None)
        assert result.content == (await whole(first)).content
        row = faulty.logits(spell(first.prompt))
        row[list(bias)] -= 100.0
        row = log_softmax(row)
        token, entry = result.logprobs[0]
        assert entry is not None
        assert entry.logprob == pytest.approx(float(row[token]))
        assert len(entry.top) == 2
        assert result.usage.engine_requests == result.usage.generated_tokens


async def test_what_a_failed_rule_leaves_is_in_the_budget() -> None:
    faulty = FaultyPool()
    await faulty.start()
    one = asked(faulty, {"utility": "prefix_reward"}, budget=Budget(max_generated_tokens=1))
    usage = (await whole(one)).usage
    assert (usage.generated_tokens, usage.engine_requests) == (1, 1)
    assert faulty.figures()["tokens_sampled"] == 1


@pytest.mark.parametrize(("sound", "policies"), [(0, {"first"}), (2, {"first", "third"})])
async def test_a_block_is_credited_to_whoever_spoke(sound: int, policies: set[str]) -> None:
    faulty = FaultyPool(after=sound)
    await faulty.start()
    params = {
        "agents": ["third"], "block": 4, "candidates": 2, "utility": "prefix_reward", "alpha": 0.0,
        "reference": "none",
    }  # fmt: skip
    sampling = Sampling(temperature=1.0)
    one = asked(faulty, params, sampling=sampling, trace=TraceLevel.FULL)
    result = await whole(one)
    assert (result.summary.outcome, result.summary.reason) == ("degraded", "out of order")
    nodes = (result.summary.trace or {})["nodes"]
    third = sum(min(sound, len(node["tokens"])) for node in nodes)
    rest = result.usage.committed_tokens - third
    counted = result.summary.fields["policies"]
    assert counted == {name: n for name, n in (("third", third), ("first", rest)) if n}
    assert set(counted) == policies
    assert nodes[0]["policy"] == ("third" if sound else "first")


async def test_a_look_ahead_whose_rule_fails_is_told() -> None:
    faulty = FaultyPool(frozenset({"only"}))
    await faulty.start()
    result = await whole(asked(faulty, {"candidates": 2, "lookahead": 2}, max_tokens=3))
    assert (result.summary.outcome, result.summary.reason) == ("degraded", "out of order")


@pytest.mark.parametrize("block", [1, 3])
async def test_the_full_trace_holds_what_was_proposed(engine: Pool, block: int) -> None:
    params = {"utility": "prefix_reward", "candidates": 2, "block": block, "alpha": 0.3}
    fields: dict[str, Any] = {"sampling": Sampling(temperature=1.0), "stream_events": True}
    result = await whole(asked(engine, params, trace=TraceLevel.FULL, **fields))
    nodes = [node for node in (result.summary.trace or {})["nodes"] if node["kind"] == "token"]
    done: list[int] = []
    for node in nodes:
        worth = []
        for one in node["proposed"]:
            text = engine.tokenizer.decode([*done, *one["tokens"]]).lstrip()
            assert one["scores"] == [mark(text, "marks")]
            worth.append(one["scores"][0] - 0.3 * one["kl"])
        assert {one["agent"] for one in node["proposed"]} <= set(AGENTS)
        best = node["proposed"][foremost(worth)]
        assert (best["tokens"], best["agent"]) == (node["tokens"], node["policy"])
        done += node["tokens"]
    assert result.events and not any("proposed" in event for event in result.events)


async def test_without_a_full_trace_nothing_of_it_is_kept(engine: Pool) -> None:
    result = await whole(asked(engine, {"utility": "prefix_reward"}, stream_events=True))
    assert result.summary.trace is None
    assert not any("proposed" in event for event in result.events)


def test_without_log_probabilities_only_blocks_are_chosen() -> None:
    made = table()
    made.capabilities = frozenset({Capability.GENERATE, Capability.SEED})
    with pytest.raises(RequestError) as caught:
        estimate(asked(made, {}, sampling=Sampling()))
    assert caught.value.param == "decoding.params.block"
    assert estimate(asked(made, {"block": 4}, sampling=Sampling())).rows > 1


async def test_look_aheads_end_at_a_stop_string() -> None:
    made = table(script={"say": "one. two. three"})
    await made.start()
    told = Told()
    params = {"candidates": 2, "plausible": 0.0, "lookahead": 12}
    one = asked(made, params, monitors={"told": told}, stop=(".",), prompt="say")
    result = await whole(one)
    assert (result.content, result.finish) == ("one", "stop")
    assert not any("." in text for steps in told.read for text in steps)
    # Of the first two candidates one leads to the stop in three tokens.
    assert ("one",) in told.read
    assert made.figures()["tokens_sampled"] == result.usage.generated_tokens
