"""Puts something around one method of one object, as time-keeping around a monitor's `score`.

The object stays what it is for everybody who looks at it; only this instance's method changes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engines.base import BoundaryError
from monitors.core.base import Message, Monitor, MonitorError, Score, Stage
from monitors.core.breaker import OpenCircuitError
from server import logs
from server.readiness import State
from server.slot import Slot


@dataclass(frozen=True, slots=True)
class Call:
    """A monitor's call that has ended: `ok`, `failed`, `refused` by its circuit or `cancelled`."""

    name: str
    seconds: float
    result: str = "ok"
    tokens: int = 0


Hook = Callable[[Call], None]
Wrapper = Callable[[Any], Any]


def around(owner: object, method: str, wrapper: Wrapper) -> None:
    """Replaces the bound method by what `wrapper` makes of it."""
    object.__setattr__(owner, method, wrapper(getattr(owner, method)))


def timed(monitor: Monitor, hook: Callable[[], Hook | None]) -> None:
    """Tells the hook, if there is one by then, of every call that ended or failed."""
    inner = monitor.score

    async def score(conversation: Sequence[Message], steps: Sequence[str], stage: Stage) -> Score:
        started, result, tokens = time.perf_counter(), "cancelled", 0
        try:
            found = await inner(conversation, steps, stage)
            result, tokens = "ok", found.tokens
            return found
        except OpenCircuitError:
            result = "refused"
            raise
        except Exception:
            result = "failed"
            raise
        finally:
            if told := hook():
                told(Call(monitor.name, time.perf_counter() - started, result, tokens))

    around(monitor, "score", lambda _: score)


def heralded(monitor: Monitor) -> None:
    """Logs what the monitor warns of once it has started."""
    inner = monitor.start

    async def start() -> None:
        await inner()
        for warning in monitor.warnings:
            logs.log("fleet").warning("monitor", unit=monitor.name, reason=warning)

    around(monitor, "start", lambda _: start)


def woken(monitor: Monitor, slot: Slot[Monitor]) -> None:
    """Starts a lazy monitor at its first call; until then it counts as able to answer."""
    inner, look = monitor.score, monitor.check

    async def score(conversation: Sequence[Message], steps: Sequence[str], stage: Stage) -> Score:
        try:
            await slot.wake()
        except BoundaryError as fault:
            raise MonitorError(str(fault)) from fault
        return await inner(conversation, steps, stage)

    async def check() -> None:
        if slot.state not in (State.COLD, State.STARTING):
            await look()

    around(monitor, "score", lambda _: score)
    around(monitor, "check", lambda _: check)
