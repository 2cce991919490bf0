"""What the bench prints: progress while it runs, tables of figures, of ratios and of bars."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clients.bench.comparing import Ratio, over_first
from clients.bench.figures import figures, metric
from clients.bench.gate import Checked
from clients.bench.grid import Grid, shown
from clients.bench.result import Result
from clients.bench.sweep import Told

SERVED = {
    "n": "n", "failed": "failed", "refused": "refused", "ttft_p50": "ttft p50",
    "ttfa_p50": "ttfa p50", "tpot_p50": "tpot p50", "e2e_p50": "e2e p50", "e2e_p95": "e2e p95",
    "e2e_p99": "e2e p99", "shown_tokens_per_s": "shown tok/s", "goodput": "goodput/s",
}  # fmt: skip
SPENT = {
    "generated_tokens": "tokens", "monitor_calls": "monitor calls", "accuracy": "accuracy",
    "pace_error": "pace error", "estimate_error": "est. error", "cost_error": "cost error",
}  # fmt: skip
OVER = {"e2e_p50": "e2e p50", "generated_tokens": "tokens"}
NAMED = ("strategy", "load")
LINE_SECONDS = 10.0


def figures_of(result: Result) -> list[Grid]:
    """The figures that matter most, a row a point: times in ms and rates, then what was spent."""
    found = [figures(one, result.goals) for one in result.points]
    served, spent = (_chosen(result, found, columns) for columns in (SERVED, SPENT))
    over = over_first_of(result)
    return [served, spent if over is None else spent.beside(over, len(NAMED))]


def _chosen(result: Result, found: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Grid:
    """Those of the columns in which there is something."""
    kept = [key for key in columns if any(one.get(key) is not None for one in found)]
    cells = ([shown(one.get(key)) for key in kept] for one in found)
    return _of_points(result, [columns[key] for key in kept], cells)


def _of_points(result: Result, head: Sequence[str], cells: Iterable[Sequence[str]]) -> Grid:
    rows = [
        [one.arm.name, one.load.name, *row] for one, row in zip(result.points, cells, strict=True)
    ]
    return Grid([*NAMED, *head], rows)


def over_first_of(result: Result) -> Grid | None:
    """What every strategy costs over the first one under the same load; None if it is alone."""
    points = result.points
    if len({one.arm.name for one in points}) < 2:
        return None
    of = [metric(name, result.goals, points) for name in OVER]
    head = [f"{said} over {points[0].arm.name}" for said in OVER.values()]
    columns = [[_over(one) for one in over_first(points, each)] for each in of]
    return _of_points(result, head, zip(*columns, strict=True))


def _over(one: Ratio | None) -> str:
    """A ratio with its interval, if it has one."""
    if one is None or one.low is None or one.high is None:
        return shown(None if one is None else one.ratio)
    return f"{shown(one.ratio)} [{shown(one.low)}, {shown(one.high)}]"


def ratios(rows: Sequence[tuple[str, str, str, Ratio]]) -> Grid:
    """Two runs: arm, load, metric, both values, their ratio; what is apart is marked."""
    return Grid(
        ["strategy", "load", "metric", "A", "B", "B / A", "95% interval", "n", ""],
        [
            [arm, load, name, shown(one.theirs), shown(one.ours), *_found(one), "*" * one.apart]
            for arm, load, name, one in rows
        ],
    )


def bars(checked: Sequence[Checked]) -> Grid:
    """Bars with what was found."""
    return Grid(
        ["bar", "load", "ratio", "95% interval", "n", "verdict"],
        [[one.bar.text, one.load, *_found(one.found), one.verdict] for one in checked],
    )


def _found(one: Ratio) -> tuple[str, str, str]:
    """A ratio, its interval and n."""
    interval = "" if one.low is None or one.high is None else f"{one.low:.3f} … {one.high:.3f}"
    return "" if one.ratio is None else f"{one.ratio:.3f}", interval, str(one.n)


@contextmanager
def progress(console: Console) -> Iterator[Told]:
    """A bar on a terminal; elsewhere a line every few seconds and one at each point's end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    said = time.monotonic()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as drawn:
        task = drawn.add_task("", total=None)

        def told(name: str, done: int, total: int) -> None:
            nonlocal said
            drawn.update(task, description=escape(name), completed=done, total=total)
            now = time.monotonic()
            if done == total or (not console.is_terminal and now - said > LINE_SECONDS):
                said = now
                console.print(f"  {name}: {done}/{total}", markup=False)

        yield told
