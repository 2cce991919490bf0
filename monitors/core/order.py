"""The order in which monitors are built, where some are made of others.

It knows names only.
"""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any


def members(spec: Mapping[str, Any]) -> list[str]:
    """The monitors that a configuration names in `members`."""
    named = spec.get("members")
    return [str(name) for name in named] if isinstance(named, list | tuple | Mapping) else []


def cycle(wanted: Mapping[str, Iterable[str]]) -> list[str]:
    """Names that each need the next one, the first again at the end; empty if there are none."""
    try:
        TopologicalSorter(wanted).prepare()
    except CycleError as fault:
        # The sorter's own order is the other way round: each is needed by the next one.
        found: list[str] = fault.args[1]
        return found[::-1]
    return []


def ordered(wanted: Mapping[str, Iterable[str]]) -> list[str]:
    """All names, each after those it needs, else as they came. Raises ValueError with the key."""
    for name, needs in wanted.items():
        for other in needs:
            if other not in wanted:
                raise ValueError(f"monitors.{name}.members: there is no monitor {other!r}")
    if round_trip := cycle(wanted):
        path = " -> ".join(round_trip)
        raise ValueError(f"monitors.{round_trip[0]}.members: made of itself: {path}")
    return list(TopologicalSorter(wanted).static_order())
