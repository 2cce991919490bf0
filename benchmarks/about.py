"""What a reader must know of figures, and how a benchmark ends: verdicts printed, the JSON written.

The command, when it ran, the machine, the versions of what was measured. It knows no benchmark.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from clients.bench.result import machine

# Taken as this is imported: at the end the load is the benchmark's own.
BEGAN, LOAD = datetime.now(UTC), os.getloadavg()
ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".envs"
Verdict = tuple[str, bool]


def about(peers: Sequence[str] = ()) -> dict[str, Any]:
    """All of it; `peers` are measured packages that stand in environments of their own."""
    own = machine()
    measured = dict(versions(peers, packages_of(peers)))
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "began": BEGAN.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        **own,
        "load_average": [round(load, 2) for load in LOAD],
        "versions": {**own["versions"], **measured},
        "commit": commit(),
    }


@cache
def commit() -> str:
    """The state of this project, since a version number stands for many; "" without git."""
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    with suppress(OSError):
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def packages_of(environments: Sequence[str]) -> list[str]:
    """The folders in which these environments have their packages."""
    return [
        str(found)
        for name in environments
        for found in (ENVIRONMENTS / name).glob("lib/python*/site-packages")
    ]


def versions(names: Sequence[str], folders: list[str]) -> Iterator[tuple[str, str]]:
    """The versions of those that are installed in `folders`."""
    for name in names:
        for found in metadata.distributions(name=name, path=folders):
            yield name, found.version
            break


def close(
    found: Mapping[str, Any], path: Path | None, checks: Sequence[Verdict] = (),
    peers: Sequence[str] = (),
) -> None:  # fmt: skip
    """The end of a benchmark: says what holds, and writes all if there is where to."""
    for text, held in checks:
        print(f"{'holds' if held else 'does not hold'}: {text}")
    told = {"verdicts": [list(one) for one in checks]} if checks else {}
    if path is not None:
        write(path, {**found, **told}, peers)


def write(path: Path, found: Mapping[str, Any], peers: Sequence[str] = ()) -> None:
    """The JSON, with what it is about unless it says so itself."""
    path.write_text(json.dumps({"about": about(peers), **found}, indent=1), "utf-8")
