"""Which monitor a strategy's parameter means: a configured name, an inline check, or the default.

Names come from the request, the monitors themselves only from the configuration; an inline check
is one of the verifier kinds, which load nothing.
"""

import math
from collections.abc import AsyncGenerator
from typing import Annotated

from pydantic import Field

from decoders.core.answers import canonical
from decoders.core.base import Commit, DecodeRequest, MonitorCallsSpent, RequestError
from decoders.core.paths import Path
from decoders.core.run import Run
from monitors.core.base import Monitor
from monitors.verifier import VerifierSpec, from_spec

Judge = Annotated[str, Field(min_length=1)] | VerifierSpec | None


def judge(request: DecodeRequest, choice: Judge, where: str) -> Monitor:
    """The monitor that `choice` means; None is the first configured one.

    Raises `RequestError` with the param `where` if there is none.
    """
    if choice is None:
        if not request.monitors:
            raise RequestError(f"{where}: required, since no monitor is configured", where)
        return next(iter(request.monitors.values()))
    if not isinstance(choice, str):
        return from_spec(choice, same_answer)
    if choice not in request.monitors:
        known = ", ".join(request.monitors) or "none"
        raise RequestError(f"{where}: no monitor {choice!r}; configured: {known}", where)
    return request.monitors[choice]


def guard(request: DecodeRequest, name: str | None, where: str) -> Monitor:
    """The monitor called `name`; None is the first that judges safety, else the first of all.

    Raises `RequestError` with the param `where` if there is none.
    """
    if name is None:
        guards = (one for one, m in request.monitors.items() if m.judges == "safety")
        name = next(guards, None)
    return judge(request, name, where)


def same_answer(answer: str, expected: str) -> bool:
    """Whether an answer's text says `expected`, both in canonical form."""
    found, wanted = canonical(answer), canonical(expected)
    if found is None or wanted is None:
        return answer.strip() == expected.strip()
    return found.key == wanted.key


async def judged(
    run: Run, monitor: Monitor, source: AsyncGenerator[Commit, None]
) -> AsyncGenerator[Commit | float, None]:
    """A path's commits and then its score; no score if the monitor has none to give.

    Scored by the path's own run, so which paths the budget's monitor calls reach is settled
    before any of them starts.
    """
    path = Path()
    async for commit in source:
        path.add(commit)
        yield commit
    reading = run.read(path.tokens)
    steps = [reading.reasoning, reading.content] if reading.reasoning else [reading.content]
    try:
        verdict = await run.score(monitor, steps)
    except MonitorCallsSpent:
        run.tally.cut = run.tally.cut or "max_monitor_calls"
        return
    if verdict is not None:
        yield float(verdict.value)


def weight(monitor: Monitor, score: float) -> float:
    """A score as a vote's weight in [0, 1]: by the range of its calibration, else standardised.

    A score beyond the range counts as its end. Without a range: the logistic function of
    (score - mean) / std.
    """
    known = monitor.calibration
    if known is not None and known.low is not None and known.high is not None:
        share = (score - known.low) / (known.high - known.low)
        return min(1.0, max(0.0, share))
    mean, std = (known.mean, known.std) if known is not None else (0.0, 1.0)
    x = (score - mean) / (std or 1.0)
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
