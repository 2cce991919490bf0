"""Records with times that a test can count by hand."""

from typing import Any

from clients.bench.arm import Arm
from clients.bench.figures import Point
from clients.bench.load import Load
from clients.bench.record import Record


def record(index: int = 0, **fields: Any) -> Record:
    """Thinks at 0.1 and 0.2 s, answers at 0.3 and 0.5 s; five tokens shown, eight generated."""
    usage = {"completion_tokens": 5, "decoding": {"generated_tokens": 8, "monitor_calls": 2}}
    given: dict[str, Any] = {
        "index": index, "prompt": f"p{index}", "sent": 1.0 + index, "took": 0.6, "status": 200,
        "reasoning": (0.1, 0.2), "content": (0.3, 0.5), "events": ((0.05, "path"),),
        "usage": usage, "decoding": {"branches": 3, "outcome": "complete"}, "finish": "stop",
    }  # fmt: skip
    return Record(**{**given, **fields})


def failed(index: int = 0) -> Record:
    """Refused with 503."""
    return Record(index, f"p{index}", 1.0 + index, 0.01, status=503, error="http 503: full")


def point(*records: Record, arm: str = "plain", load: Load | None = None) -> Point:
    """A point that took ten seconds."""
    return Point(Arm(arm, {}), load or Load("x2", concurrent=2), list(records), 10.0)
