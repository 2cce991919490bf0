"""Best of n returns what its monitor likes best, and breaks ties the same way every time."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from decoders.best_of_n import pick
from decoders.core.base import Budget, Commit, RequestError, TraceLevel
from decoders.core.paths import Path
from decoders.core.run import estimate
from engines.base import Finish
from engines.table import TableEngine
from tests.fakes.monitors import Told
from tests.fakes.requests import request, table, whole


@pytest.fixture
async def engine() -> AsyncIterator[TableEngine]:
    made = table()
    await made.start()
    yield made
    await made.stop()


def path(
    score: float | None, finish: Finish | None = Finish.STOP, *, stopped: bool = False
) -> Path:
    made = Path(score=score)
    made.add(Commit((1,), finish=finish, stopped=stopped))
    return made


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ([path(0.1), path(0.9), path(0.5)], 1),
        ([path(0.5), path(0.5)], 0),
        ([path(0.1), path(0.6750047), path(0.6750050)], 1),
        ([path(0.5, Finish.LENGTH), path(0.5)], 1),
        ([path(0.6, Finish.LENGTH), path(0.5)], 0),
        ([path(0.5, None), path(0.5, None, stopped=True)], 1),
        ([path(None), path(-3.0)], 1),
        ([path(None), path(None)], 0),
    ],
)
def test_the_best_score_wins(found: list[Path], best: int) -> None:
    assert pick(found) == best


async def test_the_answer_is_the_first_that_has_the_best_score(engine: TableEngine) -> None:
    check = {"kind": "regex", "pattern": "^[n-z]"}
    asked = request(engine, "best_of_n", {"samples": 6, "monitor": check}, prompt="babble")
    result = await whole(asked)
    scores = result.summary.fields["scores"]
    assert set(scores) == {0.0, 1.0}
    assert result.summary.fields["sample"] == scores.index(1.0)
    assert "n" <= result.content[0] <= "z"
    assert result.usage.monitor_calls == 6


async def test_unless_named_a_judge_of_answers_judges_and_no_guard(engine: TableEngine) -> None:
    guard, judge = Told(judges="safety"), Told(judges="answer")
    monitors = {"guard": guard, "judge": judge}
    await whole(request(engine, "best_of_n", {"samples": 2}, monitors=monitors))
    assert (len(guard.read), len(judge.read)) == (0, 2)


async def test_monitor_calls_go_to_the_first_samples(engine: TableEngine) -> None:
    asked = request(
        engine, "best_of_n", {"samples": 3}, prompt="babble", budget=Budget(max_monitor_calls=2)
    )
    result = await whole(asked)
    assert [score is None for score in result.summary.fields["scores"]] == [False, False, True]
    assert result.summary.outcome == "budget_exhausted"
    assert result.summary.reason == "max_monitor_calls"
    assert result.finish == "length"  # though the best so far is whole


async def test_who_judges_must_be_known(engine: TableEngine) -> None:
    for params, monitors in (({"monitor": "nobody"}, None), ({}, {})):
        fields: dict[str, Any] = {} if monitors is None else {"monitors": monitors}
        with pytest.raises(RequestError) as fault:
            estimate(request(engine, "best_of_n", params, **fields))
        assert fault.value.param == "decoding.params.monitor"


@pytest.mark.parametrize("include", [True, False])
async def test_what_stands_behind_a_stop_string_is_neither_judged_nor_sampled(
    include: bool,
) -> None:
    made = table(script={"say": ("A. B and so on", "C B. A and so on")})
    await made.start()
    check = {"kind": "regex", "pattern": "B"}
    asked = request(
        made, "best_of_n", {"samples": 8, "monitor": check}, prompt="say", think=None, stop=(".",),
        include_stop=include, trace=TraceLevel.FULL,
    )  # fmt: skip
    result = await whole(asked)
    assert (result.content, result.finish) == ("C B." if include else "C B", "stop")
    nodes = [n for n in (result.summary.trace or {})["nodes"] if n["kind"] == "sample"]
    assert {(node["length"], node["score"]) for node in nodes} == {(2, 0.0), (4, 1.0)}
    spent = sum(node["length"] for node in nodes)
    assert made.figures()["tokens_sampled"] == result.usage.generated_tokens == spent
    assert made.running == 0
