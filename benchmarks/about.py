"""How a benchmark ends: verdicts printed, the JSON written with what it is about.

Beside what the clients say of any figures (`clients.about`) that is the versions of peers. It knows
no benchmark.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from clients import about as own

ENVIRONMENTS = Path(__file__).resolve().parent.parent / ".envs"
Verdict = tuple[str, bool]


def about(peers: Sequence[str] = ()) -> dict[str, Any]:
    """All of it; `peers` are measured packages that stand in environments of their own."""
    told = own.about()
    return {**told, "versions": {**told["versions"], **dict(versions(peers, packages_of(peers)))}}


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
