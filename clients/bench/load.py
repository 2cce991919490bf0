"""How requests arrive: so many at once, at random at a rate, or as they once did somewhere.

Pure values; what sends them is `drive`.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from math import inf, nan
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Load:
    """One way of arriving.

    `concurrent` clients that each ask again once answered (closed loop); or `rate` requests a
    second, Poisson or with `burstiness` other than 1 gamma (open loop); or `arrivals`, seconds
    after the first (replay). `level` orders loads of one kind in plots.
    """

    name: str
    concurrent: int | None = None
    rate: float | None = None
    burstiness: float = 1.0
    arrivals: Sequence[float] | None = None

    @property
    def kind(self) -> str:
        """closed, open or replay."""
        if self.concurrent is not None:
            return "closed"
        return "open" if self.rate is not None else "replay"

    @property
    def level(self) -> float:
        """Clients, or requests a second."""
        if self.arrivals is not None:
            span = self.arrivals[-1] - self.arrivals[0]
            return (len(self.arrivals) - 1) / span if span > 0 else float(len(self.arrivals))
        return float(self.concurrent or self.rate or 0)

    def job(self) -> dict[str, Any]:
        """What the sending process is told."""
        if self.concurrent is not None:
            return {"concurrent": self.concurrent}
        if self.rate is not None:
            return {"rate": self.rate, "burstiness": self.burstiness}
        return {"timed": True}

    def as_json(self) -> dict[str, Any]:
        """For the result file."""
        return {"name": self.name, "kind": self.kind, "level": self.level}


def closed(text: str) -> list[Load]:
    """Closed loops of `1,2,4`. Raises ValueError."""
    try:
        counts = [int(part) for part in text.split(",") if part]
    except ValueError:
        counts = [0]
    if any(count < 1 for count in counts):
        raise ValueError(f"--concurrency {text}: each must be a whole number, at least 1")
    return [Load(f"x{count}", concurrent=count) for count in counts]


def opened(text: str, burstiness: float = 1.0) -> list[Load]:
    """Open loops of `0.5,2` requests a second. Raises ValueError."""
    try:
        rates = [float(part) for part in text.split(",") if part]
    except ValueError:
        rates = [nan]
    if not all(0 < rate < inf for rate in rates):
        raise ValueError(f"--rate {text}: each must be a number above 0")
    check_above_zero("--burstiness", burstiness)
    return [Load(f"{rate:g}/s", rate=rate, burstiness=burstiness) for rate in rates]


def check_above_zero(option: str, value: float) -> None:
    """What divides and multiplies must be a number that can. Raises ValueError."""
    if not 0 < value < inf:
        raise ValueError(f"{option} {value}: must be above 0")


@dataclass(frozen=True)
class Arrival:
    """A recorded request: seconds after the first one, tokens of prompt and of answer."""

    at: float
    context: int
    generated: int


def recorded(path: Path, n: int, speed: float = 1.0) -> list[Arrival]:
    """The first `n` requests of a trace in the form of Azure's, played `speed` times as fast.

    Columns TIMESTAMP, ContextTokens, GeneratedTokens. Raises ValueError for another form or if
    there are fewer, OSError.
    """
    # Traces are of many machines, whose clocks may differ.
    found = sorted(_rows(path, n), key=lambda row: row[0])
    if len(found) < n:
        raise ValueError(f"{path} has {len(found)} requests; {n} were asked for")
    first = found[0][0]
    return [Arrival((at - first) / speed, context, out) for at, context, out in found]


def _rows(path: Path, n: int) -> list[tuple[float, int, int]]:
    """The first `n` rows: time, tokens of prompt and of answer."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        try:
            return [_row(row) for row in islice(rows, n)]
        except (ValueError, csv.Error) as fault:
            where = f"{path}, line {rows.line_num}"
            raise ValueError(f"{where}: no arrival of a trace: {fault}") from None


def _row(row: Mapping[str, str]) -> tuple[float, int, int]:
    try:
        at = datetime.fromisoformat(row["TIMESTAMP"])
        # A trace without a zone must not jump where the reader's clocks do.
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return at.timestamp(), int(row["ContextTokens"]), int(row["GeneratedTokens"])
    except (KeyError, ValueError, TypeError) as fault:
        raise ValueError(f"{fault!r} in {dict(row)}") from None


def replay(name: str, arrivals: Sequence[Arrival]) -> Load:
    """Recorded arrivals as a load."""
    return Load(f"replay {name}", arrivals=[one.at for one in arrivals])
