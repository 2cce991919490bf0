"""Estimates: who is asked, how often, in which unit, and what becomes of failures."""

import asyncio
from collections.abc import AsyncIterator
from statistics import fmean, stdev
from typing import Any

import pytest

from decoders.core.base import Budget, MonitorCallsSpent, RequestError
from decoders.core.ledger import Ledger
from decoders.core.policies import Candidate
from decoders.core.run import Run, Tally
from decoders.core.trace import Trace
from decoders.core.utility import QEstimator, Worth, check_calibrated, summed, texts
from engines.base import Finish, Sampling
from engines.table import TableEngine
from monitors.core.base import Calibration, MonitorError, Stage
from tests.decoders.slow_policies import Marks, mark
from tests.fakes.monitors import Told
from tests.fakes.requests import request, table


@pytest.fixture
async def engine() -> AsyncIterator[TableEngine]:
    made = table(script={})
    await made.start()
    yield made
    await made.stop()


def started(engine: TableEngine, **fields: Any) -> Run:
    budget = fields.setdefault("budget", Budget())
    asked = request(engine, prompt="tell me", think=None, **fields)
    now = asyncio.get_running_loop().time()
    [ledger] = Ledger.for_choices(budget, 1, now)
    return Run(asked, ledger, Trace(asked.trace), Tally(), (0,))


def tokens(engine: TableEngine, *spelled: str) -> list[Candidate]:
    return [Candidate(None, tuple(engine.tokenizer.encode(one, special=False))) for one in spelled]


async def valued(estimator: QEstimator, found: list[Candidate]) -> list[Worth]:
    values = await estimator.worth([], found)
    assert values is not None
    return values


async def test_equal_candidates_are_scored_once(engine: TableEngine) -> None:
    monitor = Marks("m")
    run = started(engine)
    found = await QEstimator(run, [monitor], "prefix_reward").worth([], tokens(engine, *"aba"))
    assert [one.means[0] for one in found or ()] == [mark(text, "m") for text in "aba"]
    assert monitor.calls == 2


async def test_samples_are_averaged_with_their_error(engine: TableEngine) -> None:
    run, monitor = started(engine), Marks("m")
    estimator = QEstimator(run, [monitor], "rollout", lookahead=3, samples=4)
    one, again = await valued(estimator, tokens(engine, "a", "b"))
    assert monitor.calls == estimator.spent["scored"] == 8
    assert 0 < one.errors[0] < 0.5
    assert one != again
    assert estimator.spent["rollouts"] == 8
    assert run.tally.branches == 8


async def test_greedy_rollouts_need_one_sample(engine: TableEngine) -> None:
    run, monitor = started(engine, sampling=Sampling(temperature=0)), Marks("m")
    await QEstimator(run, [monitor], "rollout", lookahead=3, samples=4).worth(
        [], tokens(engine, "a")
    )
    assert monitor.calls == 1


def test_means_and_errors() -> None:
    found = summed([(1.0, 5.0), (2.0, 5.0), (6.0, 5.0)])
    assert found.means == (fmean([1, 2, 6]), 5.0)
    assert list(found.errors) == pytest.approx([stdev([1, 2, 6]) / 3**0.5, 0.0])
    assert summed([(1.0,)]).errors == (0.0,)


async def test_an_ended_candidate_is_not_gone_on_from(engine: TableEngine) -> None:
    run = started(engine)
    estimator = QEstimator(run, [Marks("m")], "rollout")
    await estimator.worth(
        [], [Candidate(None, (engine.tokenizer.eos_id or 0,), finish=Finish.STOP)]
    )
    assert estimator.spent == {"rollouts": 0, "rollout_tokens": 0, "scored": 1}


async def test_calibrated_scores_are_standard_deviations(engine: TableEngine) -> None:
    known = Calibration("raw", mean=0.25, std=0.5)
    run = started(engine)
    estimator = QEstimator(run, [Marks("m", known)], "prefix_reward", calibrated=True)
    [one] = await valued(estimator, tokens(engine, "a"))
    assert one.means[0] == pytest.approx((mark("a", "m") - 0.25) / 0.5)
    check_calibrated(Marks("m", known), "x")
    for bad in (None, Calibration("raw", mean=0.0, std=0.0)):
        with pytest.raises(RequestError) as caught:
            check_calibrated(Marks("m", bad), "x")
        assert caught.value.param == "x"


async def test_a_monitor_that_may_fail_leaves_nothing_to_compare(engine: TableEngine) -> None:
    told = Told()
    told.fault = MonitorError("away")
    run = started(engine, monitors={"told": told}, on_monitor_error={"told": "continue"})
    assert await QEstimator(run, [told], "prefix_reward").worth([], tokens(engine, *"ab")) is None
    assert "away" in (run.tally.degraded or "")


async def test_calls_run_out_in_the_middle(engine: TableEngine) -> None:
    run = started(engine, budget=Budget(max_monitor_calls=3))
    with pytest.raises(MonitorCallsSpent):
        await QEstimator(run, [Marks("m")], "prefix_reward").worth([], tokens(engine, *"abcde"))
    assert engine.running == 0


async def test_thinking_is_read_as_thinking(engine: TableEngine) -> None:
    from tests.fakes.requests import think

    run = started(engine)
    spelled = engine.tokenizer.encode
    assert texts(run, spelled("abc", special=False)) == (["abc"], Stage.ANSWER)
    asked = request(engine, think=think(engine.tokenizer), think_open=True)
    thinker = Run(asked, Ledger(), Trace(asked.trace), Tally(), (0,))
    assert texts(thinker, spelled("abc", special=False)) == (["abc"], Stage.THINKING)
    closed = spelled("abc</think>d", special=False)
    assert texts(thinker, closed) == (["abc", "d"], Stage.ANSWER)
