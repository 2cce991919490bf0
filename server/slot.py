"""One engine or monitor and its life: cold, starting, ready, down. It knows nothing of the others.

A start happens once, however many ask for it at the same time; who is cancelled while waiting does
not cancel it for the rest.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from engines.base import BoundaryError, Engine, EngineBusyError, EngineDeadError
from monitors.core.base import Monitor, MonitorError
from server import logs
from server.readiness import State

Unit = TypeVar("Unit", bound=Engine | Monitor)
SILENCE = 5.0
"""Seconds after which a check without an answer counts as none."""
AGAIN = 30.0
"""Seconds before a lazy start that failed is tried again."""


class Slot(Generic[Unit]):
    """`first` are started before it: the engine that a monitor is served by."""

    def __init__(
        self,
        unit: Unit,
        *,
        lazy: bool = False,
        first: Sequence[Callable[[], Awaitable[None]]] = (),
        every: float = 0.5,
    ) -> None:
        self.unit = unit
        self.lazy = lazy
        self.state = State.COLD if lazy else State.STARTING
        self.reason: str | None = None
        self._first = first
        self._every = every
        self._starting: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._failed = -AGAIN

    @property
    def name(self) -> str:
        """As configured."""
        return self.unit.name

    @property
    def why(self) -> str:
        """Why it is not ready, for people."""
        return f"{self.name} is {self.state}" + (f": {self.reason}" if self.reason else "")

    async def start(self) -> None:
        """Loads it unless it is loaded; raises what the start raised."""
        if self._watcher is not None:
            return
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name=f"start {self.name}")
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._starting)

    async def wake(self) -> None:
        """What a request needs: ready, or started now if lazy. Raises BoundaryError if it is not.

        A lazy start that failed is tried again after a while, not by every request.
        """
        if self.state is State.READY:
            return
        resting = time.monotonic() - self._failed < AGAIN
        if self._watcher is not None or not self.lazy or resting:
            raise self._unready()
        try:
            await self.start()
        except (EngineBusyError, EngineDeadError, MonitorError):
            raise
        except Exception as fault:
            raise self._unready() from fault

    async def stop(self) -> None:
        """Frees it, also in the middle of its start."""
        for task in (self._watcher, self._starting):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        loaded = self._starting is not None or self._watcher is not None
        self._watcher = self._starting = None
        self.state, self.reason = State.COLD if self.lazy else State.DOWN, "stopped"
        if loaded:
            await self.unit.stop()

    async def look(self) -> None:
        """Asks it once whether it can answer and notes what it says."""
        try:
            async with asyncio.timeout(SILENCE):
                await self.unit.check()
        except TimeoutError:
            self._note(State.DOWN, f"does not answer within {SILENCE:g} s")
        except EngineBusyError:
            self._note(State.READY, None)
        except Exception as fault:
            self._note(State.DOWN, str(fault) or type(fault).__name__)
        else:
            self._note(State.READY, None)

    def _unready(self) -> BoundaryError:
        starting = self.state is State.STARTING
        return EngineBusyError(self.why) if starting else EngineDeadError(self.why)

    async def _start(self) -> None:
        self._note(State.STARTING, None)
        try:
            await asyncio.gather(*(start() for start in self._first))
            await self.unit.start()
        except Exception as fault:
            self._failed, self._starting = time.monotonic(), None
            self._note(State.DOWN, str(fault) or type(fault).__name__)
            raise
        self._note(State.READY, None)
        self._watcher = asyncio.create_task(self._watch(), name=f"watch {self.name}")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self.look()

    def _note(self, state: State, reason: str | None) -> None:
        if state is not self.state and state in (State.READY, State.DOWN):
            write = logs.log("fleet").info if state is State.READY else logs.log("fleet").error
            write(str(state), unit=self.name, kind=self.unit.kind, reason=reason)
        self.state, self.reason = state, reason
