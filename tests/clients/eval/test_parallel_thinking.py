"""The claim's bookkeeping on answers made up to have known properties; no server."""

import io
import json
import random
from pathlib import Path

import pytest
from rich.console import Console

from clients.eval import parallel_thinking as claim
from clients.eval.core.asking import Arm, Item, Reply
from clients.eval.core.bench import Bench
from clients.eval.core.command import chosen, claims, find, run
from clients.eval.core.questions import Question
from clients.eval.core.report import Report
from tests.fakes.asker import ScriptedAsker


class Scripted(ScriptedAsker):
    """Answers by chance: more paths are more often right, longer thoughts less beyond 200."""

    async def context(self) -> int:
        return 2048

    def _reply(self, arm: Arm, question: Item) -> Reply:
        assert isinstance(question, Question)
        params = arm.decoding.get("params", {})
        paths, budget = params.get("paths", 1), params.get("thinking_budget", 100)
        rng = random.Random(f"{arm.name}{question.id}")
        share = 0.6 + 0.03 * paths
        if arm.decoding["strategy"] == "extended_thinking":
            share = 0.7 - 0.1 * abs(budget - 200) / 200
        tokens = 100 * paths if not params.get("early_stop", True) else 60 * paths
        content = question.answer if rng.random() < share else "0"
        if "early_stop" in params:
            content = question.answer
        spent = {"generated_tokens": tokens, "engine_requests": paths}
        return Reply(question, content, content == question.answer, 100, spent, {}, 0.1)


@pytest.fixture(scope="module")
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture(scope="module")
async def report(scripted: Scripted) -> Report:
    bench = Bench(scripted, Console(quiet=True), 600, 0, dict(claim.OPTIONS))
    return await claim.measure(bench)


def value(report: Report, arm: str, metric: str = "accuracy") -> float:
    (found,) = [row.value for row in report.rows if row.arm == arm and row.metric == metric]
    return found


async def test_the_knee_is_chosen_on_validation_and_named(report: Report) -> None:
    assert "a path gets 100 thinking tokens" in report.notes[0]
    assert "best at 200" in report.notes[0]


async def test_each_budget_has_all_its_arms_at_that_budget(report: Report) -> None:
    for multiple in (1, 2, 4, 8):
        budget = 100 * multiple
        value(report, f"parallel_thinking[paths={multiple},thinking_budget={budget}]")
        for mode in (f"wait,waits={multiple - 1}", "exact"):
            value(report, f"extended_thinking[mode={mode},thinking_budget={budget}]")


async def test_only_budgets_from_the_knee_on_are_tested(report: Report) -> None:
    tested = [row for row in report.rows if "- extended" in row.arm and row.p is not None]
    untested = [row for row in report.rows if "- extended" in row.arm and row.p is None]
    assert len(tested) == 6
    assert all("thinking_budget=100]" in row.arm for row in untested)


async def test_the_table_shows_arms_as_they_are(report: Report) -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(report.table())
    assert "plain[temperature=0]" in out.getvalue()
    assert "parallel_thinking[paths=8,thinking_budget=800]" in out.getvalue()


async def test_savings_and_changes(report: Report) -> None:
    assert value(report, "parallel_thinking[paths=8]", "tokens_saved") == pytest.approx(0.4)
    assert value(report, "parallel_thinking[paths=8]", "answers_changed") == 0.0
    assert ("cancelling decided votes saves 25% or more", True) in report.verdicts


async def test_json_has_the_public_form(report: Report) -> None:
    told = json.loads(report.as_json())
    assert set(told) == {"about", "claim", "models", "rows", "verdicts"}
    assert {"command", "machine", "versions"} <= set(told["about"])
    assert [tuple(one) for one in told["verdicts"]] == report.verdicts
    for row in told["rows"]:
        assert {"arm", "metric", "value", "low", "high", "n", "cost"} <= set(row)
        assert row["low"] <= row["value"] <= row["high"]
        assert row["n"] == 600


async def test_requests_carry_the_budget_and_room_to_answer(
    report: Report, scripted: Scripted
) -> None:
    for arm in scripted.arms:
        params = arm.decoding.get("params", {})
        if budget := params.get("thinking_budget"):
            share = budget // params.get("paths", 1)
            assert share < arm.sampling["max_tokens"] <= share + 100


async def test_the_picture_is_drawn(report: Report, tmp_path: Path) -> None:
    claim.draw(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    lines = claim.series(report)
    assert sorted(lines) == [
        "extended_thinking (exact)",
        "extended_thinking (wait)",
        "parallel_thinking",
    ]
    assert [budget for budget, _ in lines["parallel_thinking"]] == [100, 200, 400, 800]


def test_budgets_beyond_the_context_are_left_out() -> None:
    settings = claim.Settings.of({**claim.OPTIONS, "budgets": "1,8,16,32"})
    assert settings.within(100, 2048).multiples == [1, 8, 16]
    assert settings.within(100, 2048 - 256).multiples == [1, 8]


def test_claims_and_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert "parallel_thinking" in claims()
    assert run(None, None, None, 0, None, None, []) == 0
    assert "--set budgets=1,2,4,8" in capsys.readouterr().out
    assert run("nothing", None, None, 0, None, None, []) == 1
    assert "there is no claim 'nothing'" in capsys.readouterr().out
    assert chosen(find("parallel_thinking"), ["paths=4"])["paths"] == "4"
    with pytest.raises(ValueError, match="the options are"):
        chosen(find("parallel_thinking"), ["pahts=4"])


def test_no_server_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("parallel_thinking", "http://127.0.0.1:9", 1, 0, None, None, []) == 1
    assert "eval:" in capsys.readouterr().out
