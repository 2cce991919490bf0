"""SafeThink by a guard that errs or hangs: what leaves, and what the answer says of it."""

from collections.abc import Callable, Sequence

import pytest

from decoders.core.base import Budget
from monitors.core.base import Message, MonitorError, Score, Stage
from tests.decoders.test_safethink import PHRASE, PLAN, SAFE, asked, run_on
from tests.fakes.guard import WordGuard
from tests.fakes.requests import table


@pytest.mark.parametrize("fails", range(5))
@pytest.mark.parametrize("lenient", [False, True])
async def test_a_guard_that_fails(fails: int, lenient: bool) -> None:
    """Blocked: what had been judged has left, nothing else. Allowed: marked."""
    said = "<think>\na\n\nb\n\nc\n</think>\n\nThe end."
    engine = table(script={"hello": said})
    on_error = {"guard": "continue" if lenient else "block"}
    one = asked(engine, WordGuard(fails=[fails]), on_monitor_error=on_error)
    result = await run_on(engine, one)
    outcome = result.summary.as_dict()["outcome"]
    if lenient or fails > 3:
        assert result.content == "The end."
        assert outcome == ("degraded" if fails < 4 else "complete")
    else:
        assert (outcome, result.finish) == ("refused", "content_filter")
        assert "guard" in (result.last.refusal or "")
        assert result.content == ""
        assert result.reasoning == "a\n\nb\n\nc\n"[: 3 * fails]


class Forgetful(WordGuard):
    """Fails where it is told to, by what it reads; `failed` counts."""

    def __init__(self, where: Callable[[Sequence[Sequence[str]]], bool]) -> None:
        super().__init__("bad", delay=0.02)
        self.where, self.failed = where, 0

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        """As ever, or a fault: `where` sees the steps of all calls so far, this one's last."""
        if self.where([*(read for read, _ in self.seen), steps]):
            self.seen.append((list(steps), stage))
            self.failed += 1
            raise MonitorError("down")
        return await super().score(conversation, steps, stage)


def beyond(calls: Sequence[Sequence[str]]) -> bool:
    """What was read ahead of the violation."""
    return any("bad" in step for step in calls[-1][:-1])


def behind(calls: Sequence[Sequence[str]]) -> bool:
    """Every attempt but the first."""
    return len([steps for steps in calls if steps == calls[-1] and PHRASE in steps[-1]]) > 1


@pytest.mark.parametrize("where", [beyond, behind])
async def test_a_verdict_that_did_not_matter_may_fail(
    where: Callable[[Sequence[Sequence[str]]], bool],
) -> None:
    """What was read ahead of a violation is thrown away, and so are attempts behind a safe one."""
    engine = table(script={"hello": PLAN, "safely": SAFE})
    for on_error in ("continue", "block"):
        guard = Forgetful(where)
        one = asked(engine, guard, on_monitor_error={"guard": on_error})
        result = await run_on(engine, one)
        assert guard.failed
        assert (result.content, result.summary.as_dict()["outcome"]) == ("No.", "complete")


@pytest.mark.parametrize("optimistic", [True, False])
@pytest.mark.parametrize("on_error", ["continue", "block"])
@pytest.mark.parametrize("fails", range(9))
async def test_a_guard_that_dies_while_an_answer_is_steered(
    optimistic: bool, on_error: str, fails: int
) -> None:
    """From any call on: what stands unjudged stands marked, or nothing of it has left."""
    engine = table(script={"hello": PLAN, "safely": SAFE})
    guard = WordGuard("bad", fails=range(fails, 99), delay=0.001)
    one = asked(engine, guard, optimistic=optimistic, on_monitor_error={"guard": on_error})
    result = await run_on(engine, one)
    outcome = result.summary.as_dict()["outcome"]
    assert outcome in ("complete", {"continue": "degraded", "block": "refused"}[on_error])
    assert outcome != "complete" or result.content == "No."
    if outcome == "refused":
        judged = "".join("".join(steps[-1:]) for steps, _ in guard.seen[:fails])
        left = result.reasoning + result.content
        assert "bad" not in left
        assert all(step in judged for step in left.replace(PHRASE, "").split("\n\n"))


@pytest.mark.parametrize("optimistic", [True, False])
async def test_a_guard_that_hangs_lets_nothing_out(optimistic: bool) -> None:
    engine, guard = table(script={"hello": PLAN}), WordGuard(delay=None)
    budget = Budget(deadline_ms=80)
    result = await run_on(engine, asked(engine, guard, optimistic=optimistic, budget=budget))
    assert (result.reasoning, result.content, result.finish) == ("", "", "length")
    assert guard.running == 0
