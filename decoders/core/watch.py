"""Reads an answer step by step beside a monitor: ahead of its verdicts, or in turn with them.

Both ways see the same steps with the same scores in the same order, since a run of unsteered steps
is one engine request whose seed says only where it began. It does not know what a verdict leads to.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from decoders.core.base import MonitorCallsSpent
from decoders.core.run import Run
from decoders.core.scope import Ahead, in_turn
from decoders.core.steps import Cutter, Rules, Step
from decoders.core.trail import Trail
from monitors.core.base import Monitor, Score, Stage

Judged = tuple[Step, Score | None]
Verdict = tuple[Score | None, str | None]
"""A score, or why there is none although there should be."""
AT_ONCE = 16
"""Steps of an answer that are judged at the same time: a slow guard must not be flooded."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a step and its score; a try that the budget left unjudged is `spent`.

    `failed` says why a monitor that may fail gave none.
    """

    step: Step
    score: Score | None
    failed: str | None = None
    spent: bool = False

    @property
    def value(self) -> float | None:
        """The score's value, None without one."""
        return None if self.score is None else self.score.value


@dataclass(frozen=True, slots=True)
class Watch:
    """Who watches a run, where steps are cut, and whether the engine waits for verdicts.

    `answers` says whether steps of the answer are judged as well as steps of the thinking, `warmth`
    is the temperature of attempts.
    """

    run: Run
    monitor: Monitor
    rules: Rules
    answers: bool
    optimistic: bool
    warmth: float

    @property
    def limited(self) -> bool:
        """Whether calls or branches are counted: then none is made that may not be needed."""
        budget = self.run.request.budget
        return budget.max_monitor_calls is not None or budget.max_branches is not None

    def steps(self, trail: Trail) -> AbstractAsyncContextManager[AsyncIterator[Judged]]:
        """The steps that follow `trail`, judged as if each one before were accepted."""
        purpose = ("main", len(trail.tokens)) if trail.tokens else ("main",)
        changes = {} if self.optimistic else {"paced": True}
        source = self._cut(self.run, trail.tokens, purpose, changes)
        return self._judged(source, trail.ahead())

    @asynccontextmanager
    async def _judged(
        self, source: AsyncGenerator[Step, None], reading: Trail
    ) -> AsyncIterator[AsyncIterator[Judged]]:
        async def told() -> AsyncGenerator[tuple[Step, list[str]], None]:
            async with aclosing(source):
                async for step in source:
                    texts = reading.texts(step)
                    reading.add(step, None)
                    yield step, texts

        async def judge(item: tuple[Step, list[str]]) -> Verdict:
            return await self._score(*item)

        if self.optimistic:
            async with Ahead(told(), judge, 1 if self.limited else AT_ONCE) as ahead:
                yield (self._seen(step, *verdict) async for (step, _), verdict in ahead)
        else:
            async with aclosing(in_turn(told(), judge)) as turns:
                yield (self._seen(step, *verdict) async for (step, _), verdict in turns)

    def _seen(self, step: Step, score: Score | None, failed: str | None) -> Judged:
        """The step's turn has come: a failure to judge it counts, as one further ahead does not."""
        if failed is not None:
            self.run.tally.degrade(failed)
        return step, score

    async def attempt(
        self, run: Run, trail: Trail, after: list[int], purpose: tuple[int | str, ...]
    ) -> Attempt:
        """One more try at the step after `trail`, sampled after the tokens `after`."""
        limit = self.rules.most + 1 + len(run.think.close_ids if run.think else ())
        changes = {"temperature": self.warmth}
        source = self._cut(run, after, purpose, changes, limit=limit, inside=trail.tokens)
        async with aclosing(source):
            step = await anext(source)
        try:
            return Attempt(step, *await self._score(step, trail.texts(step), again=True))
        except MonitorCallsSpent:
            return Attempt(step, None, spent=True)

    async def _cut(
        self, run: Run, after: list[int], purpose: tuple[int | str, ...],
        changes: Mapping[str, Any], *, limit: int | None = None, inside: list[int] | None = None,
    ) -> AsyncGenerator[Step, None]:  # fmt: skip
        """Samples after `after` and cuts; `inside` are the tokens that stand before it."""
        cutter = self._cutter(after if inside is None else inside)
        source = run.generate(after, limit=limit, purpose=purpose, **changes)
        async with aclosing(source):
            async for delta in source:
                for step in cutter.feed(delta):
                    yield step

    def _cutter(self, done: list[int]) -> Cutter:
        request = self.run.request
        think = request.think if request.chat else None
        tokenizer = request.engine.tokenizer
        return Cutter(tokenizer, think, request.think_open, self.rules, done)

    def reads(self, step: Step) -> bool:
        """Whether such steps are judged."""
        return step.stage is Stage.THINKING or self.answers

    async def _score(self, step: Step, texts: list[str], again: bool = False) -> Verdict:
        """The step's score; None if nothing is to be judged, or the monitor may fail and did."""
        if not self.reads(step) or (step.blank and not again):
            return None, None
        failed: list[str] = []
        score = await self.run.score(self.monitor, texts, step.stage, failed=failed.append)
        return score, failed[0] if failed else None
