"""The books of one run: what it may still spend and what it has spent.

Whoever awaits an engine or a monitor books here; decoders never count. Children have an allowance
of their own, cut from their parent's when they are made, and book into the same usage, so what one
path spends never depends on how fast another one was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Self

from decoders.core.base import Budget, DecodeRequest, MonitorCallsSpent, Usage
from engines.base import Delta


def _share(total: int | None, parts: int, index: int) -> int | None:
    """Part `index` of `total` cut into `parts` as even as can be, the first ones larger."""
    if total is None:
        return None
    return total // parts + (index < total % parts)


@dataclass(slots=True)
class Ledger:
    """Allowances (None is no limit) and the usage they are booked into.

    `deadline` is a time of the event loop's clock, in seconds.
    """

    tokens: int | None = None
    branches: int | None = None
    calls: int | None = None
    deadline: float | None = None
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def for_choices(cls, budget: Budget, n: int, arrival: float) -> list[Self]:
        """One ledger per choice; a request's budget is cut evenly, its deadline is common."""
        due = None if budget.deadline_ms is None else arrival + budget.deadline_ms / 1000
        return [
            cls(
                _share(budget.max_generated_tokens, n, i),
                _share(budget.max_branches, n, i),
                _share(budget.max_monitor_calls, n, i),
                due,
            )
            for i in range(n)
        ]

    def reserve(self, tokens: int) -> int:
        """Takes up to `tokens` from the allowance before an engine request; returns the grant."""
        if self.tokens is None:
            return tokens
        granted = max(0, min(tokens, self.tokens))
        self.tokens -= granted
        return granted

    def book(self, delta: Delta) -> int:
        """Counts what an engine sampled and the forward passes it took; returns the tokens.

        A canvas's positions count once, those filled behind the end of its answer too.
        """
        sampled = len(delta.tokens) + (delta.fill.beyond if delta.fill is not None else 0)
        self.usage.generated_tokens += sampled
        self.usage.forward_passes += delta.forwards
        return sampled

    def settle(self, granted: int, used: int) -> None:
        """Gives back what an ended engine request did not use."""
        if self.tokens is not None:
            self.tokens += granted - used

    def call(self) -> None:
        """Books a monitor call before it is made."""
        if self.calls is not None:
            if self.calls < 1:
                raise MonitorCallsSpent("the budget's max_monitor_calls is spent")
            self.calls -= 1
        self.usage.monitor_calls += 1

    def open_branches(self, wanted: int) -> int:
        """Takes up to `wanted` branches from the allowance; returns the grant."""
        if self.branches is None:
            return wanted
        granted = min(wanted, self.branches)
        self.branches -= granted
        return granted

    def split(self, parts: int) -> list["Ledger"]:
        """Cuts the whole allowance evenly; this ledger keeps nothing."""
        children = [
            Ledger(
                _share(self.tokens, parts, i),
                _share(self.branches, parts, i),
                _share(self.calls, parts, i),
                self.deadline,
                self.usage,
            )
            for i in range(parts)
        ]
        self.tokens = None if self.tokens is None else 0
        self.branches = None if self.branches is None else 0
        self.calls = None if self.calls is None else 0
        return children


def shares(requests: Sequence[DecodeRequest]) -> list[list[Ledger]]:
    """For each prompt of one call a ledger per choice: its budget goes over all of them."""
    first, n = requests[0], requests[0].n
    ledgers = Ledger.for_choices(first.budget, n * len(requests), first.arrival)
    return [ledgers[i * n : (i + 1) * n] for i in range(len(requests))]


def total(ledgers: list[Ledger]) -> Usage:
    """The usage of a whole request: the sum over its choices, the prompt counted once."""
    whole = Usage()
    for entry in fields(Usage):
        values = [getattr(ledger.usage, entry.name) for ledger in ledgers]
        setattr(whole, entry.name, max(values) if entry.name == "prompt_tokens" else sum(values))
    return whole
