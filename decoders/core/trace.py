"""What happened in a run, as a versioned tree: a node holds only what it adds to its parent.

Events for the stream are the same notes, small ones only. It does not know what a note means.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decoders.core.base import TraceLevel

VERSION = 1
LARGE = frozenset({"proposed"})
"""Fields that the stream is not told of."""

Listener = Callable[[Mapping[str, Any]], None]


class Trace:
    """Collects notes at the level asked for; at `none` and `summary` a note costs one call."""

    def __init__(self, level: TraceLevel, listener: Listener | None = None) -> None:
        """`listener` gets every note's small fields as it happens."""
        self.level = level
        self.summary: dict[str, Any] = {}
        self._listener = listener
        self._nodes: list[dict[str, Any]] = []

    def note(
        self,
        kind: str,
        parent: int | None,
        tokens: Sequence[int] | None,
        fields: Mapping[str, Any],
    ) -> int | None:
        """Adds a node and tells the listener; returns the node's id at level `full`."""
        if self._listener is not None:
            small = {name: value for name, value in fields.items() if name not in LARGE}
            self._listener({"event": kind, **small})
        if self.level is not TraceLevel.FULL:
            return None
        node: dict[str, Any] = {"id": len(self._nodes), "parent": parent, "kind": kind, **fields}
        if tokens is not None:
            node["tokens"] = list(tokens)
        self._nodes.append(node)
        return len(self._nodes) - 1

    def tree(self) -> Mapping[str, Any] | None:
        """The whole trace at level `full`, else None."""
        if self.level is not TraceLevel.FULL:
            return None
        return {"version": VERSION, "nodes": self._nodes}
