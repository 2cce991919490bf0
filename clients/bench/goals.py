"""What counts as well served: bounds that a request must keep, `ttft=500,e2e=4000` in milliseconds.

Knows no load. A request that failed or was refused, by the server or by a monitor, misses every
goal.
"""

from collections.abc import Callable, Mapping

from clients.bench.record import Record

MEASURED: Mapping[str, Callable[[Record], float | None]] = {
    "ttft": lambda one: one.ttft,
    "ttfa": lambda one: one.ttfa,
    "tpot": lambda one: one.tpot,
    "e2e": lambda one: one.took,
}
"""What a goal may bound, in seconds of one record; None where the request has no such time."""

MAY_LACK = ("tpot",)
"""What a whole answer, of one token, need not have; any other time that never came is too late."""

Goals = Mapping[str, float]
"""Upper bounds in milliseconds by the names of `MEASURED`."""


def read(text: str) -> dict[str, float]:
    """The goals that are meant. Raises ValueError."""
    found: dict[str, float] = {}
    for pair in filter(None, text.split(",")):
        name, sign, bound = pair.partition("=")
        try:
            found[name] = float(bound if sign and name in MEASURED else "")
        except ValueError:
            said = f"--goal {pair}: goals are {', '.join(MEASURED)}, as NAME=MS"
            raise ValueError(said) from None
    return found


def kept(record: Record, goals: Goals) -> bool:
    """Whether a complete answer came within every bound."""
    if not record.ok or record.refused:
        return False
    times = ((name, MEASURED[name](record), bound) for name, bound in goals.items())
    return all(
        name in MAY_LACK if seconds is None else seconds * 1000 <= bound
        for name, seconds, bound in times
    )
