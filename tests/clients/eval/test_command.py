"""`satisfice eval` from the command to the file, against a real server over a table engine."""

import asyncio
import json
from pathlib import Path

import pytest

from clients.eval.core.command import run
from tests.server.api.live import Live


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    rows = [
        {"id": f"q{i}", "template": f"t{i % 3}", "level": 1, "prompt": "hello", "answer": "7"}
        for i in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def test_a_claim_is_measured_and_written(
    live: Live, stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [
        "model=tab",
        "budgets=1,2",
        "modes=wait",
        "validation=6",
        "paths=3",
        f"test_file={stored}",
        f"validation_file={stored}",
    ]
    told, drawn = tmp_path / "out.json", tmp_path / "out.png"
    claim = "parallel_thinking"
    status = await asyncio.to_thread(run, claim, live.url, 6, 0, told, drawn, settings)
    out = capsys.readouterr().out
    assert status == 0, out
    written = json.loads(told.read_text())
    assert (written["claim"], written["models"]) == (claim, ["tab"])
    plain, *_ = written["rows"]
    assert (plain["arm"], plain["metric"], plain["value"]) == ("plain", "accuracy", 1.0)
    assert plain["cost"]["engine_requests"] == 1
    (voting,) = [
        row
        for row in written["rows"]
        if row["arm"] == "parallel_thinking[paths=3]" and row["metric"] == "accuracy"
    ]
    assert voting["cost"]["engine_requests"] == 3
    assert voting["n"] == 6
    assert drawn.stat().st_size > 1000
    assert "holds: and changes no answer" in out


async def test_what_the_server_refuses_is_told(
    live: Live, stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["model=nobody", "validation=6", f"test_file={stored}", f"validation_file={stored}"]
    status = await asyncio.to_thread(run, "parallel_thinking", live.url, 6, 0, None, None, settings)
    assert status == 1
    assert "nobody" in capsys.readouterr().out
