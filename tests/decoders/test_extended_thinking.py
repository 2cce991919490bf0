"""Extended thinking writes its phrase, keeps its budgets and closes what it has opened."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from decoders.core.base import RequestError
from decoders.core.run import estimate
from engines.base import Sampling
from engines.table import TableEngine
from tests.fakes.requests import Whole, request, table, whole

THOUGHT = "let me see 3+4=7\n"


@pytest.fixture
async def engine() -> AsyncIterator[TableEngine]:
    made = table()
    await made.start()
    yield made
    await made.stop()


async def extended(engine: TableEngine, **params: Any) -> Whole:
    greedy = Sampling(temperature=0.0)
    asked = request(engine, "extended_thinking", params, sampling=greedy, max_tokens=200)
    return await whole(asked)


async def test_the_phrase_stands_where_thinking_would_have_ended(engine: TableEngine) -> None:
    result = await extended(engine, waits=1)
    assert result.reasoning.startswith(f"{THOUGHT}Wait")
    assert result.usage.forced_tokens == len("Wait")  # the table's tokens are bytes
    assert result.usage.discarded_tokens == 1  # the close marker that was not let stand


async def test_another_phrase_is_written_as_often_as_asked(engine: TableEngine) -> None:
    result = await extended(engine, waits=2, phrase="Hm")
    assert result.summary.interventions <= 2
    assert result.reasoning.startswith(f"{THOUGHT}Hm")


@pytest.mark.parametrize("budget", [1, 4, 12])
@pytest.mark.parametrize("mode", ["wait", "exact"])
async def test_the_thinking_budget_holds_to_the_token(
    engine: TableEngine, mode: str, budget: int
) -> None:
    result = await extended(engine, mode=mode, thinking_budget=budget)
    marker = 1
    assert result.usage.reasoning_tokens in (budget, budget + marker)
    assert result.usage.forced_tokens == marker
    assert THOUGHT.startswith(result.reasoning.rstrip())


async def test_a_minimum_that_is_passed_anyway_changes_nothing(engine: TableEngine) -> None:
    result = await extended(engine, mode="minimum", thinking_budget=12)
    assert (result.reasoning, result.content) == (THOUGHT, "The answer is 7.")
    assert result.summary.interventions == 0


@pytest.mark.parametrize("params", [{"mode": "exact"}, {"mode": "minimum"}, {"waits": None}])
async def test_without_an_end_a_budget_is_required(
    engine: TableEngine, params: dict[str, Any]
) -> None:
    with pytest.raises(RequestError) as fault:
        estimate(request(engine, "extended_thinking", params))
    assert fault.value.param == "decoding.params.thinking_budget"


async def test_a_model_without_markers_cannot_do_it(engine: TableEngine) -> None:
    for fields in ({"think": None}, {"chat": False}):
        with pytest.raises(RequestError) as fault:
            estimate(request(engine, "extended_thinking", **fields))
        assert fault.value.param == "decoding.strategy"
