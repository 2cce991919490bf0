"""`satisfice bench` on a real server over a table engine, its load sent by vLLM's own loop."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clients.bench import judging, page, result
from clients.bench.cli import app
from clients.bench.command import Asked, run
from tests.server.api.live import Live, engine, running, settings

pytestmark = pytest.mark.slow
ANSWER = "<think>\nlet me see 3+4=7\n</think>\n\nThe answer is 7."
N = 6
ARMS = ("plain", "vote=>parallel_thinking:paths=3", "nothing=>no_such_strategy")


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Live]:
    table = engine(script={"seven": ANSWER}, token_seconds=0.002)
    async with running(settings(), table) as live:
        yield live


@pytest.fixture(scope="module")
async def written(server: Live, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One run of everything: JSON and page."""
    folder = tmp_path_factory.mktemp("bench")
    lines = [{"id": f"q{i}", "prompt": f"seven {i}", "answer": "7"} for i in range(N)]
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = Asked(
        ARMS, "1,3", "20", prompts=prompts, n=N, warmup=2, temperature=0, max_tokens=60,
        goal="e2e=20000", model="tab",
    )  # fmt: skip
    out, html = folder / "out.json", folder / "out.html"
    assert await asyncio.to_thread(run, asked, server.url, out, html) == 0
    return out, html


def points(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (one["arm"], one["load"]["name"]): one for one in json.loads(path.read_text())["points"]
    }


async def test_every_arm_is_measured_under_every_load(written: tuple[Path, Path]) -> None:
    found = points(written[0])
    assert set(found) == {(arm, load) for arm in ("plain", "vote", "nothing")
                          for load in ("x1", "x3", "20/s")}  # fmt: skip
    for (arm, _), one in found.items():
        figures = one["figures"]
        assert figures["n"] == N
        if arm == "nothing":
            assert (figures["failed"], figures["goodput"], figures["accuracy"]) == (N, 0, 0)
            assert all(record["status"] == 400 for record in one["records"])
            continue
        assert (figures["failed"], figures["accuracy"], figures["goals_met"]) == (0, 1, 1)
        assert figures["ttft_p50"] <= figures["ttfa_p50"] <= figures["e2e_p50"]
        assert figures["shown_tokens"] == pytest.approx(len(ANSWER), abs=20)


async def test_what_only_the_server_knows_is_in_it(written: tuple[Path, Path]) -> None:
    found = points(written[0])
    plain, vote = found["plain", "x1"]["figures"], found["vote", "x1"]["figures"]
    assert (plain["engine_requests"], vote["engine_requests"]) == (1, 3)
    assert vote["generated_tokens"] > 2 * plain["generated_tokens"]
    assert vote["branches"] == 3
    assert vote["ttfe_p50"] <= vote["ttft_p50"]
    assert vote["queue_ms"] >= 0


async def test_what_a_dry_run_expects_is_held_against_what_came(
    written: tuple[Path, Path],
) -> None:
    found = points(written[0])
    for arm in ("plain", "vote"):
        figures = found[arm, "x3"]["figures"]
        assert figures["estimate_error"] < 1
        assert figures["cost_error"] >= 0
    assert "estimate_error" not in found["nothing", "x3"]["figures"]


async def test_recorded_arrivals_are_played_again(server: Live, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"2024-05-10 00:00:0{at}+00:00,60,5" for at in ("0.0", "1.0", "1.5")]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, ""]))
    asked = Asked(("plain",), replay=trace, speed=2, n=3, model="tab")
    out = tmp_path / "out.json"
    assert await asyncio.to_thread(run, asked, server.url, out, None) == 0
    ((_, found),) = points(out).items()
    sent = [one["sent"] for one in found["records"]]
    assert [at - sent[0] for at in sent] == pytest.approx([0, 0.5, 0.75], abs=0.2)
    assert found["figures"]["failed"] == 0
    for one in found["records"]:
        assert one["usage"]["completion_tokens"] == 5
        assert one["usage"]["prompt_tokens"] == pytest.approx(60, abs=10)


async def test_prompts_are_made_up_to_a_length(server: Live, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    asked = Asked(("plain",), synthetic="40:3", n=2, warmup=1, model="tab")
    assert await asyncio.to_thread(run, asked, server.url, out, None) == 0
    ((_, found),) = points(out).items()
    assert [one["prompt"] for one in found["records"]] == ["made-0", "made-1"]
    for one in found["records"]:
        assert one["usage"]["completion_tokens"] == 3
        assert one["usage"]["prompt_tokens"] == pytest.approx(40, abs=2)
    assert json.loads(out.read_text())["about"]["versions"]["satisfice"]


async def test_a_closed_loop_keeps_to_its_clients(written: tuple[Path, Path]) -> None:
    found = points(written[0])
    for load, most in (("x1", 1), ("x3", 3)):
        # Both are rounded to a tenth of a millisecond.
        spans = [(r["sent"], r["sent"] + r["took"] - 2e-4) for r in found["plain", load]["records"]]
        at_once = max(sum(a <= start < b for a, b in spans) for start, _ in spans)
        assert at_once <= most


async def test_the_page_stands_alone(written: tuple[Path, Path]) -> None:
    text = written[1].read_text()
    assert text.count("<svg") == 4
    assert "vote" in text
    for foreign in ("<script", "src=", "@import", "url(http", "<link"):
        assert foreign not in text


async def test_a_run_equals_itself_and_keeps_bars(
    written: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = written[0]
    assert judging.compare(out, out, ["e2e_p50", "accuracy"]) == 0
    said = capsys.readouterr().out
    assert "1.000 … 1.000" in said
    assert judging.check(out, None, ["generated_tokens vote/plain >= 2"], strict=True) == 0
    assert judging.check(out, None, ["generated_tokens vote/plain <= 2 @ x1"], strict=False) == 1
    assert judging.check(out, out, ["e2e_p50 plain <= 1.0"], strict=True) == 0
    assert judging.check(out, None, ["e2e_p50 other/plain <= 2"], strict=False) == 2


async def test_the_file_reads_back(written: tuple[Path, Path]) -> None:
    again = result.read(written[0])
    assert page.page(again) == written[1].read_text()
    assert json.loads(json.dumps(again.as_json()))["points"] == list(points(written[0]).values())


def test_a_file_that_is_no_result_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("[]", "{}", '{"bench": 1, "points": []}', '{"bench": 1, "points": [5]}'):
        path.write_text(text)
        answer = CliRunner().invoke(app, ["compare", str(path), str(path)])
        assert answer.exit_code == 1
        assert "no result of the bench" in answer.output


def test_a_wrong_wish_starts_nothing() -> None:
    answer = CliRunner().invoke(app, ["--strategy", "plain:x", "--url", "http://127.0.0.1:9"])
    assert answer.exit_code == 1
    assert "NAME=VALUE" in answer.output
