"""`satisfice bench show`, `compare` and `gate`: results that lie in files."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from clients.bench import gate, result, showing
from clients.bench.command import printed, terminal
from clients.bench.comparing import Ratio, matched, ratio
from clients.bench.figures import metric
from clients.bench.result import Result

COMPARED = (
    "ttft_p50", "ttft_p99", "ttfa_p50", "tpot_p50", "e2e_p50", "e2e_p99", "generated_tokens",
    "goals_met", "accuracy",
)  # fmt: skip


def show(run: Path, markdown: bool = False) -> int:
    """Prints a run's tables again; the exit status."""
    console = terminal()
    try:
        found = result.read(run)
    except (ValueError, OSError) as fault:
        console.print(f"bench show: {fault}", markup=False)
        return 1
    printed(console, found, markdown)
    return 0


def compare(first: Path, second: Path, metrics: Sequence[str] = COMPARED) -> int:
    """Prints B over A for every arm and load of both; the exit status."""
    console = terminal()
    try:
        before, after = result.read(first), result.read(second)
        rows = compared(before, after, metrics)
    except (ValueError, OSError) as fault:
        console.print(f"bench compare: {fault}", markup=False)
        return 1
    console.print(showing.ratios(rows).table())
    return 0


def compared(
    before: Result, after: Result, metrics: Sequence[str]
) -> list[tuple[str, str, str, Ratio]]:
    """Arm, load, metric and ratio. Raises ValueError if there is no such metric or no such pair."""
    pairs = matched(after.points, before.points)
    if not pairs:
        raise ValueError("the two runs have no strategy under the same load in common")
    both = [*before.points, *after.points]
    wanted = {name: metric(name, before.goals, both) for name in metrics}
    found = [
        (one.arm.name, one.load.name, name, ratio(one, other, of))
        for one, other in pairs
        for name, of in wanted.items()
    ]
    return [row for row in found if row[3].ours is not None and row[3].theirs is not None]


def check(run: Path, baseline: Path | None, bars: Sequence[str], strict: bool) -> int:
    """Prints each bar's verdict; 0 if all hold, with `strict` an open one counts as failed."""
    console = terminal()
    try:
        checked = verdicts(result.read(run), baseline, bars)
    except (ValueError, OSError) as fault:
        console.print(f"bench gate: {fault}", markup=False)
        return 2
    console.print(showing.bars(checked).table())
    return _status(console, [one.verdict for one in checked], strict)


def verdicts(run: Result, baseline: Path | None, bars: Sequence[str]) -> list[gate.Checked]:
    """Every bar at every load. Raises ValueError."""
    others = result.read(baseline).points if baseline is not None else []
    wanted = [gate.read(text) for text in bars]
    if not wanted:
        raise ValueError("there is no --bar to check")
    return [one for bar in wanted for one in gate.check(bar, run.points, others, run.goals)]


def _status(console: Console, found: Sequence[str], strict: bool) -> int:
    failed = sum(one == "fails" or (strict and one == "open") for one in found)
    console.print(f"{len(found) - failed} of {len(found)} bars stand")
    return 1 if failed else 0
