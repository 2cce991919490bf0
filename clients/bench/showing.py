"""What the bench prints: progress while it runs, tables of figures, of ratios and of bars."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from clients.bench.comparing import Ratio
from clients.bench.figures import figures
from clients.bench.gate import Checked
from clients.bench.page import shown
from clients.bench.result import Result
from clients.bench.sweep import Told

COLUMNS = {
    "n": "n", "failed": "failed", "refused": "refused", "ttft_p50": "ttft p50",
    "ttfa_p50": "ttfa p50", "tpot_p50": "tpot p50", "e2e_p50": "e2e p50", "e2e_p99": "e2e p99",
    "shown_tokens_per_s": "shown tok/s", "goodput": "goodput/s", "generated_tokens": "tokens",
    "accuracy": "accuracy", "estimate_error": "est. error", "cost_error": "cost error",
}  # fmt: skip
LINE_SECONDS = 10.0


def figures_of(result: Result) -> Table:
    """The figures that matter most, a row a point; times in ms."""
    found = [figures(one, result.goals) for one in result.points]
    kept = [key for key in COLUMNS if any(one.get(key) is not None for one in found)]
    table = Table("strategy", "load", *(COLUMNS[key] for key in kept))
    table.columns[0].overflow = "fold"
    for point, one in zip(result.points, found, strict=True):
        cells = [shown(one.get(key)) for key in kept]
        table.add_row(escape(point.arm.name), point.load.name, *cells)
    return table


def ratios(rows: Sequence[tuple[str, str, str, Ratio]]) -> Table:
    """Two runs: arm, load, metric, both values, their ratio; what is apart is marked."""
    table = Table("strategy", "load", "metric", "A", "B", "B / A", "95% interval", "n", "")
    for arm, load, name, one in rows:
        interval = "" if one.low is None or one.high is None else f"{one.low:.3f} … {one.high:.3f}"
        value = "" if one.ratio is None else f"{one.ratio:.3f}"
        cells = [shown(one.theirs), shown(one.ours), value, interval, str(one.n)]
        table.add_row(escape(arm), load, name, *cells, "*" if one.apart else "")
    return table


def bars(checked: Sequence[Checked]) -> Table:
    """Bars with what was found."""
    table = Table("bar", "load", "ratio", "95% interval", "n", "verdict")
    for one in checked:
        low, high = one.found.low, one.found.high
        interval = "" if low is None or high is None else f"{low:.3f} … {high:.3f}"
        value = "" if one.found.ratio is None else f"{one.found.ratio:.3f}"
        n = str(one.found.n)
        table.add_row(escape(one.bar.text), one.load, value, interval, n, one.verdict)
    return table


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
