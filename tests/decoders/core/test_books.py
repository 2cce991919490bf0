"""Ledgers, seeds and scopes: what a run's promises stand on."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.core.base import Budget, MonitorCallsSpent
from decoders.core.ledger import Ledger, total
from decoders.core.scope import Together
from decoders.core.seeds import derive


@given(st.integers(0, 100), st.integers(1, 9))
def test_a_split_budget_is_neither_more_nor_less(tokens: int, parts: int) -> None:
    ledger = Ledger(tokens=tokens, calls=tokens)
    children = ledger.split(parts)
    assert sum(child.tokens or 0 for child in children) == tokens
    assert sum(child.calls or 0 for child in children) == tokens
    assert ledger.reserve(1) == 0
    with pytest.raises(MonitorCallsSpent):
        ledger.call()
    shares = [child.tokens or 0 for child in children]
    assert max(shares) - min(shares) <= 1


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8))
def test_reservations_never_pass_the_allowance(asked: list[tuple[int, int]]) -> None:
    ledger, spent = Ledger(tokens=50), 0
    for want, use in asked:
        granted = ledger.reserve(want)
        used = min(use, granted)
        ledger.settle(granted, used)
        spent += used
    assert spent <= 50
    assert ledger.tokens == 50 - spent


def test_choices_share_the_request_s_budget() -> None:
    budget = Budget(max_generated_tokens=10, max_branches=3, deadline_ms=500)
    ledgers = Ledger.for_choices(budget, 3, 1.0)
    assert [ledger.tokens for ledger in ledgers] == [4, 3, 3]
    assert {ledger.deadline for ledger in ledgers} == {1.5}


def test_monitor_calls_run_out() -> None:
    ledger = Ledger(calls=1)
    ledger.call()
    with pytest.raises(MonitorCallsSpent):
        ledger.call()
    assert ledger.usage.monitor_calls == 1


def test_children_book_into_their_parents_usage() -> None:
    ledger = Ledger()
    for child in ledger.split(2):
        child.usage.generated_tokens += 3
        child.usage.prompt_tokens = 7
    assert ledger.usage.generated_tokens == 6
    assert total([ledger, Ledger()]).prompt_tokens == 7


def test_seeds_differ_by_purpose_and_stay_put() -> None:
    purposes = [(0, "main"), (1, "main"), (0, "path", 0, "main"), (0, "path", 1, "main"), (0, "m")]
    seeds = [derive(7, *purpose) for purpose in purposes]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [derive(7, *purpose) for purpose in purposes]
    assert derive(None, 0, "main") is None


async def count(limit: int, closed: list[int]) -> AsyncGenerator[int, None]:
    try:
        for number in range(limit):
            await asyncio.sleep(0)
            yield number
    finally:
        closed.append(limit)


async def test_together_gives_every_moment_and_every_end() -> None:
    closed: list[int] = []
    seen: dict[int, list[int | None]] = {0: [], 1: []}
    async with Together([count(2, closed), count(3, closed)]) as moments:
        async for index, item in moments:
            seen[index].append(item)
    assert seen == {0: [0, 1, None], 1: [0, 1, 2, None]}
    assert sorted(closed) == [2, 3]


async def test_leaving_together_closes_all() -> None:
    closed: list[int] = []
    async with Together([count(100, closed), count(200, closed)]) as moments:
        async for _ in moments:
            break
    assert sorted(closed) == [100, 200]


async def test_a_cancelled_source_is_not_heard_again() -> None:
    closed: list[int] = []
    heard: list[int] = []
    async with Together([count(50, closed), count(5, closed)]) as moments:
        async for index, _ in moments:
            heard.append(index)
            if len(heard) == 2:
                moments.cancel(0)
                heard.clear()
    assert set(heard) == {1}


async def broken() -> AsyncGenerator[int, None]:
    yield 1
    raise LookupError("broken")


async def test_a_source_s_fault_comes_through_and_ends_the_rest() -> None:
    closed: list[int] = []
    with pytest.raises(LookupError):
        async with Together([count(1000, closed), broken()]) as moments:
            async for _ in moments:
                pass
    assert closed == [1000]
