"""What can answer now, as /ready tells it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where an engine or a monitor is in its life."""

    COLD = "cold"
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Readiness:
    """`reasons` says why for everything that is down or starting; lazy ones do not count."""

    engines: Mapping[str, State]
    monitors: Mapping[str, State]
    reasons: Sequence[str] = ()

    @property
    def cold(self) -> list[str]:
        """Lazy ones that nobody has asked for yet."""
        both = {**self.engines, **self.monitors}
        return [name for name, state in both.items() if state is State.COLD]

    @property
    def ready(self) -> bool:
        """Everything not lazy can answer."""
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "ready": self.ready,
            "engines": {name: state.value for name, state in self.engines.items()},
            "monitors": {name: state.value for name, state in self.monitors.items()},
            "cold": self.cold,
            "reasons": list(self.reasons),
        }
