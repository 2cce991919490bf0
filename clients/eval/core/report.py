"""A claim's result: rows with intervals and costs, as a table, as JSON, as verdicts in words."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from clients.about import about
from clients.eval.core.asking import Reply
from clients.eval.core.statistics import Interval


@dataclass(frozen=True)
class Row:
    """One arm's value of one metric, with its 95% interval and its mean cost per request.

    `p` is Holm-adjusted within its table; None where nothing is tested.
    """

    arm: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    cost: Mapping[str, float]
    p: float | None = None

    @staticmethod
    def of(
        arm: str,
        metric: str,
        found: Interval,
        cost: Mapping[str, float] | None = None,
        p: float | None = None,
    ) -> "Row":
        """A row from an interval."""
        return Row(arm, metric, found.value, found.low, found.high, found.n, cost or {}, p)


@dataclass
class Report:
    """What was found: `verdicts` are (what was claimed, whether it held), `notes` the choices."""

    claim: str
    models: Sequence[str]
    rows: list[Row] = field(default_factory=list)
    verdicts: list[tuple[str, bool]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> str:
        """The public form: about, claim, models, rows, verdicts; a tested row has `p` as well."""
        rows: list[dict[str, Any]] = [
            {k: v for k, v in asdict(row).items() if k != "p" or v is not None} for row in self.rows
        ]
        told = {
            "about": about(), "claim": self.claim, "models": list(self.models), "rows": rows,
            "verdicts": [list(one) for one in self.verdicts],
        }  # fmt: skip
        return json.dumps(told, indent=2)

    def table(self) -> Table:
        """For the terminal."""
        costs = [key for key in SHOWN if any(row.cost.get(key) for row in self.rows)]
        names = [SHOWN[key] for key in costs]
        shown = Table("arm", "metric", "value", "95% interval", "n", "p", *names)
        shown.columns[0].overflow = "fold"
        for row in self.rows:
            cost = [f"{row.cost[key]:.0f}" if key in row.cost else "" for key in costs]
            p = "" if row.p is None else f"{row.p:.2g}"
            interval = f"{number(row.low)} … {number(row.high)}"
            shown.add_row(
                escape(row.arm), row.metric, number(row.value), interval, str(row.n), p, *cost
            )
        return shown


SHOWN = {
    "generated_tokens": "tokens", "engine_requests": "requests", "forward_passes": "passes",
}  # fmt: skip
"""Costs that have a column, where there are any."""


def number(value: float) -> str:
    """Three decimals for shares, none for large counts."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"


def mean_cost(replies: Sequence[Reply]) -> dict[str, float]:
    """`usage.decoding` per request, averaged."""
    keys = {key for reply in replies for key in reply.spent}
    return {
        key: sum(reply.spent.get(key, 0) for reply in replies) / len(replies)
        for key in sorted(keys)
    }
