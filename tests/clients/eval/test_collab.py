"""The claim on answers made up to have known properties, and once on a server over a table."""

import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from clients.eval import collab as claim
from clients.eval.core.asking import Arm, Asker, Item, Reply
from clients.eval.core.bench import Bench
from clients.eval.core.errands import Errands
from clients.eval.core.report import Report
from tests.fakes.asker import ScriptedAsker
from tests.fakes.policies import pool
from tests.server.api.live import Live, running, settings

KINDS = ("sort", "raise", "code")


class Scripted(ScriptedAsker):
    """A policy does its own kind and else little; Collab does most of what its agents can."""

    def _reply(self, arm: Arm, question: Item) -> Reply:
        assert isinstance(question, Errands)
        params = arm.decoding["params"]
        able = params.get("agents") or params.get("policies") or [params["policy"]]
        chance = 0.95 if arm.decoding["strategy"] == "collab" or len(able) == 1 else 0.4
        rng = random.Random(f"{arm.name}{question.id}")
        said = [
            answer if rng.random() < (chance if kind in able else 0.05) else "?"
            for kind, answer in zip(question.order.split("-"), question.answers, strict=True)
        ]
        content = ";".join(said)
        cost = {"generated_tokens": 12 * max(arm.rows, params.get("samples", 1))}
        return Reply(question, content, question.is_right(content), 0, cost, {}, 0.1)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("errands") / "errands.jsonl"
    rows = [
        {"id": f"e{i}", "order": "-".join(KINDS), "prompt": f"hello {i}", "answers": list("abc")}
        for i in range(200)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def options(stored: Path, **more: str) -> dict[str, str]:
    files = {"test_file": str(stored), "validation_file": str(stored)}
    return {**claim.OPTIONS, **files, **more}


@pytest.fixture(scope="module")
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture(scope="module")
async def report(scripted: Scripted, stored: Path) -> Report:
    return await claim.measure(Bench(scripted, Console(quiet=True), 200, 0, options(stored)))


def value(report: Report, arm: str, metric: str = "reward") -> float:
    (found,) = [row.value for row in report.rows if row.arm == arm and row.metric == metric]
    return found


def test_a_reward_is_a_share_and_surplus_counts() -> None:
    one = Errands("e", "x", "p", ("60", "GJM", "47"))
    assert [one.reward(text) for text in ("60;GJM;47", "60;?;47", "47;60;GJM", "")] == [
        1, pytest.approx(2 / 3), 0, 0,
    ]  # fmt: skip
    assert one.reward("60;GJM;47;1") == 3 / 4
    assert one.is_right("60;GJM;47")
    assert not one.is_right("60;GJM;47;1")


async def test_everything_is_compared_to_the_best_single_policy(report: Report) -> None:
    single = report.rows[0].arm
    assert single.startswith("policy[")
    ours = next(row.arm for row in report.rows if row.arm.startswith("collab[lookahead="))
    found = value(report, f"{ours} / {single}", "reward_ratio")
    assert found == pytest.approx(value(report, ours) / value(report, single))
    assert value(report, f"{ours} / {single}", "reward_difference") == pytest.approx(
        value(report, ours) - value(report, single)
    )
    assert found > claim.AIM
    assert dict(report.verdicts)[f"{ours} has at least 1.2 times the best policy (bound)"]


async def test_best_of_n_gets_as_many_tokens_as_collab(report: Report, scripted: Scripted) -> None:
    # Nine rows of twelve tokens against twelve tokens of one answer.
    assert any(row.arm.startswith("best_of_n[") and "samples=9" in row.arm for row in report.rows)
    arms = {arm.name: arm for arm in scripted.arms}
    whole = next(arm for name, arm in arms.items() if name.startswith("best_of_n["))
    assert whole.decoding["params"]["block"] == whole.sampling["max_tokens"]


async def test_reward_grows_with_the_number_of_policies(report: Report) -> None:
    rows = [row for row in report.rows if row.metric == "reward" and "agents=" in row.arm]
    ahead = [row.value for row in rows if "lookahead" in row.arm]
    assert len(ahead) == len(KINDS)
    assert ahead == sorted(ahead)


async def test_the_picture_is_drawn(report: Report, tmp_path: Path) -> None:
    claim.draw(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


async def test_what_is_kept_is_not_asked_again(stored: Path, tmp_path: Path) -> None:
    first, second = Scripted(), Scripted()
    named = options(stored, parts="alone")
    bench = Bench(first, Console(quiet=True), 12, 0, named, tmp_path)
    told = await claim.measure(bench)
    again = replace(bench, asker=second)
    once_more = await claim.measure(again)
    assert (once_more.rows, once_more.verdicts) == (told.rows, told.verdicts)
    assert first.arms
    assert not second.arms
    await claim.measure(replace(again, seed=1))
    assert second.arms


@pytest.fixture
async def pooled() -> AsyncIterator[Live]:
    async with running(settings(), pool()) as server:
        yield server


async def test_every_arm_is_one_that_a_server_accepts(pooled: Live, stored: Path) -> None:
    few: dict[str, Any] = {
        "model": "tab", "policies": "first,second", "target": "seven", "candidates": "1",
        "many": "2", "lookaheads": "2", "alphas": "0", "samples": "2", "max_tokens": "6",
        "validation": "1",
    }  # fmt: skip
    asker = Asker(pooled.url, "tab", 0)
    bench = Bench(asker, Console(quiet=True), 2, 0, options(stored, **few))
    report = await claim.measure(bench)
    await asker.close()
    costs = {row.arm: row.cost for row in report.rows if row.metric == "reward"}
    assert costs["policy[first]"]["generated_tokens"] <= 6
    assert costs["collab[lookahead=2,alpha=0.0]"]["monitor_calls"] > 0
    assert (
        costs["collab[utility=implicit,candidates=2,plausible=0.1,alpha=0.0]"]["monitor_calls"] == 0
    )
