"""The tables and the page of a run."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from clients.bench import page
from clients.bench.cli import app
from clients.bench.figures import Point
from clients.bench.grid import Grid, shown
from clients.bench.load import Load
from clients.bench.result import Result
from clients.bench.showing import figures_of, over_first_of
from tests.clients.bench.records import point, record

X4 = Load("x4", concurrent=4)


def lasting(arm: str, took: float, load: Load | None = None) -> Point:
    """Ten answers, each a tenth slower than the last, with tokens by the time of the first."""
    usage = {"completion_tokens": 5, "decoding": {"generated_tokens": round(10 * took)}}
    ones = (record(i, took=took * (1 + i / 10), usage=usage) for i in range(10))
    return point(*ones, arm=arm, load=load)


@pytest.fixture
def result() -> Result:
    """Two arms under two loads, one of which only the first had."""
    points = [lasting("plain", 1.0), lasting("vote|8", 2.0), lasting("plain", 3.0, X4)]
    return Result(points, {}, {"command": "satisfice bench"})


def test_costs_stand_beside_those_of_the_first(result: Result) -> None:
    result.points.append(lasting("vote|8", 12.0, X4))
    over = over_first_of(result)
    assert over is not None
    assert over.head == ["strategy", "load", "e2e p50 over plain", "tokens over plain"]
    # Both were asked the same, of which each took so many times as long.
    assert over.rows == [
        ["plain", "x2", "1", "1"],
        ["vote|8", "x2", "2 [2, 2]", "2 [2, 2]"],
        ["plain", "x4", "1", "1"],
        ["vote|8", "x4", "4 [4, 4]", "4 [4, 4]"],
    ]
    served, spent = figures_of(result)
    assert served.rows[1][served.head.index("e2e p95")] == shown(2000 * 1.855)
    assert spent.head[-2:] == over.head[-2:]
    assert spent.rows[3][-2:] == over.rows[3][-2:]


def test_an_arm_alone_has_nothing_over_it() -> None:
    assert over_first_of(Result([lasting("plain", 1.0)])) is None
    assert over_first_of(Result([])) is None
    # Nor has one that the first was not asked beside.
    apart = over_first_of(Result([lasting("plain", 1.0), lasting("vote", 1.0, X4)]))
    assert apart is not None
    assert apart.rows[1] == ["vote", "x4", "", ""]


def test_a_saved_run_is_shown_again(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    result.write(path)
    table = CliRunner().invoke(app, ["show", str(path)])
    assert table.exit_code == 0
    assert "2 [2, 2]" in table.output
    told = CliRunner().invoke(app, ["show", str(path), "--markdown"])
    lines = told.output.splitlines()
    assert r"| vote\|8 | x2 | 20 |" in told.output
    assert sum(line.startswith("| --- | --- |") for line in lines) == 2
    # No line is broken to fit a screen.
    assert {line[:1] for line in lines} <= {"|", ""}
    path.write_text("{}")
    broken = CliRunner().invoke(app, ["show", str(path)])
    assert (broken.exit_code, "no result of the bench" in broken.output) == (1, True)


def test_the_page_has_what_is_over_the_first(result: Result) -> None:
    text = page.page(result)
    assert "<th>e2e p50 over plain</th>" in text
    assert "<td>2 [2, 2]</td>" in text
    assert "over plain" not in page.page(Result([lasting("plain", 1.0)]))


def test_a_name_is_no_formula(result: Result) -> None:
    result.points += [lasting("$5_$^{", 1.0), lasting("a $x^2$ b", 1.0)]
    text = page.page(result)
    assert text.count(">a $x^2$ b</text>") == 2
    assert ">$5_$^{</text>" in text


def test_a_grid_is_escaped_where_it_goes() -> None:
    grid = Grid(["a[b]"], [["<i>"], ["x|y"]])
    assert (
        grid.html()
        == "<table><tr><th>a[b]</th></tr><tr><td>&lt;i&gt;</td></tr><tr><td>x|y</td></tr></table>"
    )
    assert grid.markdown() == "| a[b] |\n| --- |\n| <i> |\n| x\\|y |"
