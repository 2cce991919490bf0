"""A run of the bench as a file, and what it says of the machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from clients.bench import result
from clients.bench.result import Result
from tests.clients.bench.records import point, record


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    whole = Result([point(record(0))], {"e2e": 1.0}, {"seed": 0}).as_json()
    path.write_text(json.dumps(whole))
    assert json.dumps(result.read(path).as_json()) == path.read_text()
    parts: list[dict[str, Any]] = [
        {"records": [5]},
        {"records": [{}]},
        {"load": {"name": "x", "kind": "closed", "level": "x"}},
        {"load": {"name": "x", "kind": "replay", "level": 0}},
    ]
    points = [[{**whole["points"][0], **part}] for part in parts]
    broken = [
        *([], {}, {**whole, "goals": "e2e"}),
        *({k: v for k, v in whole.items() if k != key} for key in ("goals", "about", "points")),
        *({**whole, "points": one} for one in points),
    ]
    for written in (*(json.dumps(one).encode() for one in broken), b"{", b"\xff"):
        path.write_bytes(written)
        with pytest.raises(ValueError, match=r"x\.json is no result of the bench"):
            result.read(path)
    path.write_text(json.dumps({**whole, "bench": 2}))
    with pytest.raises(ValueError, match="another version: 2"):
        result.read(path)
