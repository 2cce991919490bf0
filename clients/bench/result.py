"""A run of the bench as a file: what was asked, on which machine, every record, the figures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.bench.arm import Arm
from clients.bench.figures import Point, figures
from clients.bench.goals import Goals
from clients.bench.load import Load
from clients.bench.record import Record

VERSION = 1


@dataclass
class Result:
    """What `--json` writes and `compare` and `gate` read."""

    points: list[Point]
    goals: Goals = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ended_early(self) -> str:
        """Why there are fewer points or rounds than were asked for; "" if there are not."""
        return str(self.about.get("ended_early", ""))

    def as_json(self) -> dict[str, Any]:
        """The whole file."""
        return {
            "bench": VERSION,
            "about": dict(self.about),
            "goals": dict(self.goals),
            "points": [
                {
                    "arm": one.arm.name, "decoding": dict(one.arm.decoding),
                    "load": one.load.as_json(), "seconds": one.seconds, "late_s": one.late_s,
                    "server": one.server,
                    "figures": figures(one, self.goals),
                    "records": [record.as_json() for record in one.records],
                }
                for one in self.points
            ],
        }  # fmt: skip

    def write(self, path: Path) -> None:
        """Writes the file."""
        path.write_text(json.dumps(self.as_json()) + "\n", "utf-8")


def read(path: Path) -> Result:
    """The run in a file. Raises ValueError, OSError."""
    try:
        written = json.loads(path.read_text("utf-8"))
        if (version := written["bench"]) == VERSION:
            points = [_point(one) for one in written["points"]]
            return Result(points, dict(written["goals"]), dict(written["about"]))
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as fault:
        named = f"{type(fault).__name__}: {fault}"
        raise ValueError(f"{path} is no result of the bench: {named}") from None
    raise ValueError(f"{path} is of another version: {version}")


def _point(written: Mapping[str, Any]) -> Point:
    load = written["load"]
    return Point(
        Arm(written["arm"], written["decoding"]),
        _load(load["name"], load["kind"], load["level"]),
        [Record.of(one) for one in written["records"]],
        written["seconds"],
        written["late_s"],
        written["server"],
    )


def _load(name: str, kind: str, level: float) -> Load:
    """The load of that description; a replay keeps its name and mean rate."""
    if kind == "closed":
        return Load(name, concurrent=int(level))
    return Load(name, rate=level) if kind == "open" else Load(name, arrivals=[0.0, 1 / level])


def groups(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Points by arm, each by its level."""
    found: dict[str, list[Point]] = {}
    for one in points:
        found.setdefault(one.arm.name, []).append(one)
    return {arm: sorted(ones, key=lambda one: one.load.level) for arm, ones in found.items()}
