"""What stands around every configured monitor: time-out, circuit breaker, counting, one error.

Whatever goes wrong inside comes out as MonitorError, and a score that is no number is no score. A
caller that goes away is no failure of the monitor. It knows no kind of monitor by name.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from monitors.core import canaries
from monitors.core.base import Message, Monitor, MonitorError, Score, Stage, UnreadableError
from monitors.core.breaker import Breaker, Clock, OpenCircuitError
from monitors.core.calibration import load
from monitors.core.spec import MonitorSpec
from monitors.core.trivial import is_trivial


@dataclass(slots=True)
class Costs:
    """What a monitor has been asked and what it took; refused calls were never made."""

    calls: int = 0
    failures: int = 0
    refused: int = 0
    seconds: float = 0.0
    tokens: int = 0


class Protected(Monitor):
    """A monitor as everybody calls it; `inner` is the one that scores."""

    def __init__(self, inner: Monitor, spec: MonitorSpec, clock: Clock = time.monotonic) -> None:
        """Raises ValueError if the configured calibration cannot be read."""
        self.inner = inner
        self.costs = Costs()
        self.breaker = Breaker(spec.breaker, clock)
        self._spec = spec
        self._clock = clock
        self._stored = load(spec.calibration) if spec.calibration is not None else None
        self.configured = spec.threshold
        self._show()

    def _show(self) -> None:
        inner = self.inner
        self.name, self.kind, self.unit = inner.name, inner.kind, inner.unit
        self.judges, self.floor, self.ceiling = inner.judges, inner.floor, inner.ceiling
        self.calibration = self._stored or inner.calibration

    async def start(self) -> None:
        """Starts the monitor and gives it its canaries; those only warn."""
        await self.inner.start()
        self._show()
        self.warnings = await canaries.warnings(self, self.inner, self._spec)

    async def stop(self) -> None:
        """Stops the monitor."""
        await self.inner.stop()

    async def check(self) -> None:
        """Raises MonitorError while the circuit is open, else asks the monitor."""
        try:
            self.breaker.check()
        except OpenCircuitError as fault:
            raise self._named(fault) from None
        await self.inner.check()

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        """The monitor's score, in time and finite; else MonitorError."""
        if self._lowest(steps, stage):
            return Score(low := self._least(), low, "trivial")
        try:
            leave = self.breaker.admit()
        except OpenCircuitError as fault:
            self.costs.refused += 1
            raise self._named(fault) from None
        well: bool | None = None
        started = self._clock()
        self.costs.calls += 1
        try:
            found = await self._bounded(conversation, steps, stage)
            well = True
        except UnreadableError:
            self.costs.failures += 1
            raise
        except MonitorError:
            self.costs.failures += 1
            well = False
            raise
        finally:
            self.breaker.ended(leave, well)
            self.costs.seconds += self._clock() - started
        self.costs.tokens += found.tokens
        return found

    async def _bounded(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        try:
            async with asyncio.timeout(self._spec.timeout_s):
                found = await self.inner.score(conversation, steps, stage)
        except MonitorError:
            raise
        except TimeoutError as late:
            raise MonitorError(
                f"monitor {self.name!r} took longer than {self._spec.timeout_s:g} s"
            ) from late
        except Exception as fault:
            reason = f"{type(fault).__name__}: {fault}".removesuffix(": ")
            raise MonitorError(f"monitor {self.name!r} failed: {reason}") from fault
        if not (math.isfinite(found.value) and math.isfinite(found.raw)):
            # No comparison with NaN is a violation, so it would pass every threshold.
            raise MonitorError(f"monitor {self.name!r} gave {found.value}, which is no score")
        return found

    def _named(self, fault: OpenCircuitError) -> OpenCircuitError:
        return OpenCircuitError(f"monitor {self.name!r}: {fault}")

    def _lowest(self, steps: Sequence[str], stage: Stage) -> bool:
        wanted = self.judges == "answer" and self._spec.trivial == "lowest"
        return wanted and stage is Stage.ANSWER and bool(steps) and is_trivial(steps[-1])

    def _least(self) -> float:
        """Below what it gave on its calibration set, as far as its unit goes."""
        known = self.calibration
        if known is None:
            return self.floor
        spread = known.mean - 4 * known.std
        return max(self.floor, spread if known.low is None else min(known.low, spread))
