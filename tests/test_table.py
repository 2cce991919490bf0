"""README's table of strategies is made from results, and keeps what no result answers."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "table"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    row = {"arm": "plain", "metric": "accuracy", "value": 0.6581, "n": 600}
    vote = {**row, "arm": "vote[paths=8]", "value": 0.915, "cost": {"generated_tokens": 912}}
    rows = [{**row, "cost": {"generated_tokens": 158}}, vote]
    (tmp_path / "claim.json").write_text(json.dumps({"rows": rows}))
    points = [
        {"arm": arm, "load": {"name": "x4"}, "figures": {"e2e_p50": ms}}
        for arm, ms in (("plain", 200.0), ("vote[paths=8]", 500.0))
    ]
    (tmp_path / "bench.json").write_text(json.dumps({"points": points}))
    taken = {"what": "guard far: end to end / plain", "ratio": 1.0004}
    (tmp_path / "watching.json").write_text(json.dumps({"rows": [taken]}))
    return tmp_path


def test_questions_are_answered_from_results(table: dict[str, Any], folder: Path) -> None:
    template = (
        "| `vote` | {claim: accuracy vote[paths=8]} of {claim: n plain} "
        "| {claim: generated_tokens vote[paths=8] / plain} × tokens, "
        "{bench: e2e_p50 vote[paths=8] / plain @ x4} × time, "
        "{watching: ratio guard far: end to end / plain} |\n"
    )
    made = table["filled"](template, "| `vote` | old | old |\n", folder)
    assert made == "| `vote` | 0.915 of 600 | 5.8 × tokens, 2.5 × time, 1.00 |\n"


def test_a_cell_without_its_result_stays(table: dict[str, Any], folder: Path) -> None:
    template = "| `vote` | {claim: accuracy other} | {none: x y} and {claim: n plain} |\n"
    made = table["filled"](template, "| `vote` | said before | by hand |\n", folder)
    assert made == "| `vote` | said before | by hand |\n"


def test_the_template_speaks_of_every_strategy_of_the_readme(table: dict[str, Any]) -> None:
    _, rest = (ROOT / "README.md").read_text().split(table["OPEN"])
    now = rest.split(table["CLOSE"])[0]
    template = (ROOT / "docs" / "strategies-table.md").read_text()
    names = [[row.split("|")[1] for row in text.splitlines()] for text in (now, template)]
    assert names[0] == names[1]
    assert table["filled"](template, now, Path("/nowhere")).count("\n") == now.count("\n")
