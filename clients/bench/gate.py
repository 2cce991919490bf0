"""Bars that a run must keep, as ratios: `e2e_p50 parallel_thinking/plain <= 1.3 @ x8`.

A ratio of two arms of one run, or of one arm to the same in a baseline; absolute times mean nothing
on a machine that CI happens to get. Knows no files.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clients.bench.comparing import Ratio, ratio
from clients.bench.figures import Metric, Point, metric
from clients.bench.goals import Goals

FORM = re.compile(
    r"(?P<metric>\w+)\s+(?P<ours>[^/]+?)(?:\s*/\s*(?P<theirs>.+?))?\s*(?P<sign><=|>=)\s*"
    r"(?P<bound>[\d.]+)(?:\s*@\s*(?P<load>.+))?"
)


@dataclass(frozen=True)
class Bar:
    """One bar: a figure's ratio between two arms, or (`theirs` None) to the baseline's same arm.

    `load` None means every load that both have.
    """

    text: str
    metric: str
    ours: str
    theirs: str | None
    most: bool
    bound: float
    load: str | None

    def holds(self, value: float) -> bool:
        """Whether a ratio is on the right side."""
        return value <= self.bound if self.most else value >= self.bound


@dataclass(frozen=True)
class Checked:
    """A bar at one load: `verdict` is holds, fails, or open.

    Open is one that the interval reaches across, or that has none. What has no ratio, since one
    side has nothing at all, fails.
    """

    bar: Bar
    load: str
    found: Ratio
    verdict: str


def read(text: str) -> Bar:
    """The bar that is meant. Raises ValueError."""
    form = FORM.fullmatch(text.strip())
    if form is None:
        raise ValueError(f"--bar {text!r}: must be METRIC ARM[/ARM] <=|>= RATIO [@ LOAD]")
    said = form.groupdict()
    load = said["load"].strip() if said["load"] else None
    return Bar(
        text, said["metric"], said["ours"], said["theirs"], said["sign"] == "<=",
        float(said["bound"]), load,
    )  # fmt: skip


def check(
    bar: Bar, points: Sequence[Point], baseline: Sequence[Point], goals: Goals
) -> list[Checked]:
    """The bar at each load. Raises ValueError if nothing in the runs is what it speaks of."""
    others, named = (baseline, bar.ours) if bar.theirs is None else (points, bar.theirs)
    pairs = [
        (one, other)
        for one in points
        for other in others
        if one.arm.name == bar.ours and other.arm.name == named
        and one.load.name == other.load.name and bar.load in (None, one.load.name)
    ]  # fmt: skip
    if not pairs:
        raise ValueError(f"--bar {bar.text!r}: no such arms and load in what was measured")
    wanted = metric(bar.metric, goals, [*points, *baseline])
    return [_checked(bar, one, other, wanted) for one, other in pairs]


def _checked(bar: Bar, one: Point, other: Point, wanted: Metric) -> Checked:
    found = ratio(one, other, wanted)
    return Checked(bar, one.load.name, found, _verdict(bar, found))


def _verdict(bar: Bar, found: Ratio) -> str:
    if found.ratio is None:
        return "fails"
    if found.low is None or found.high is None:
        return "open"
    held = {bar.holds(end) for end in (found.ratio, found.low, found.high)}
    return "open" if len(held) > 1 else "holds" if held == {True} else "fails"
