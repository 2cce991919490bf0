"""A circuit breaker: after failures in a row, calls are refused at once until a rest is over.

Then one call is let through as a probe; it closes the circuit or opens it again. It does not know
what is called, and has no clock of its own.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from monitors.core.base import MonitorError

Clock = Callable[[], float]


class BreakerSpec(BaseModel):
    """When the circuit opens and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failures: int = Field(5, ge=1, description="failed calls in a row that open the circuit")
    rest_s: float = Field(30.0, gt=0, description="seconds until one call is tried again")


class OpenCircuitError(MonitorError):
    """The call was refused without being made."""


class Circuit(StrEnum):
    """Closed lets calls through, open none, half open one at a time."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Pass:
    """Leave to make one call. A probe decides whether the circuit closes."""

    probe: bool


class Breaker:
    """Counts the failures of one monitor."""

    def __init__(self, spec: BreakerSpec, clock: Clock = time.monotonic) -> None:
        self._spec = spec
        self._clock = clock
        self._failures = 0
        self._opened: float | None = None
        self._probing = False

    @property
    def state(self) -> Circuit:
        """How a call would be met now."""
        if self._opened is None:
            return Circuit.CLOSED
        return Circuit.OPEN if self._left > 0 else Circuit.HALF_OPEN

    @property
    def _left(self) -> float:
        """Seconds of rest that are left."""
        if self._opened is None:
            return 0.0
        return self._opened + self._spec.rest_s - self._clock()

    def admit(self) -> Pass:
        """Leave for one call, to be handed to `ended`. Raises OpenCircuitError."""
        if self._opened is None:
            return Pass(probe=False)
        self.check()
        if self._probing:
            raise OpenCircuitError("its circuit is half open and the one call that tests it runs")
        self._probing = True
        return Pass(probe=True)

    def check(self) -> None:
        """Raises OpenCircuitError while it rests."""
        if (left := self._left) > 0:
            raise OpenCircuitError(
                f"its circuit is open after {self._failures} failures in a row; "
                f"next try in {left:.0f} s"
            )

    def ended(self, leave: Pass, well: bool | None) -> None:
        """Notes how a call ended; None if that says nothing about the monitor, as a cancelling."""
        if leave.probe:
            self._probing = False
        elif self._opened is not None:
            return  # begun before the circuit opened
        if well:
            self._failures, self._opened = 0, None
        elif well is not None:
            self._failures += 1
            if leave.probe or self._failures >= self._spec.failures:
                self._opened = self._clock()
