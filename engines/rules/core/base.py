"""The nouns of policy rules: what a rule sees of one step and what it says.

A rule is a pure function over the logits that K policies give for the next token, for all rows of
a batch that ask for the same. It knows neither engines nor requests, and keeps nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from engines.rules.core.cast import Cast, Parameters, RuleFault

Where = Tensor | slice
CACHED = 2**17  # values, half a megabyte


@dataclass(frozen=True)
class Step:
    """One step of the rows that share a rule. `logits` are [policies, rows, vocabulary].

    What is forbidden (banned, outside a grammar) is -inf in every policy. `greedy` says that these
    rows are decoded at temperature 0. `bias` [rows, vocabulary] is what requests add to the logits
    of whoever speaks, None where nothing: rewards and references are read without it.
    """

    cast: Cast
    logits: Tensor
    greedy: bool = False
    bias: Tensor | None = None

    @cached_property
    def normalizers(self) -> Tensor:
        """What each policy's logits are above its log-probabilities, [policies, rows, 1]."""
        parts = torch.split(self.logits, few(self.logits), 1)
        return torch.cat([_normalizers(part) for part in parts], 1)

    @cached_property
    def forbidden(self) -> Tensor:
        """Which tokens may not be drawn, [rows, vocabulary]."""
        return torch.isneginf(self.logits[0])

    def place(self, member: str) -> int:
        """Where a member stands among the policies."""
        return self.cast.members.index(member)

    def places(self, members: Sequence[str]) -> Where:
        """The same of several, as an index."""
        return where([self.place(member) for member in members], self.logits)

    def biased(self, logits: Tensor) -> Tensor:
        """Logits [..., rows, vocabulary] of who speaks, with what the requests add."""
        return logits if self.bias is None else logits + self.bias

    def of(self, member: str) -> Tensor:
        """One member's natural log-probabilities, [rows, vocabulary]."""
        place = self.place(member)
        return self.logits[place] - self.normalizers[place]

    def of_tokens(self, member: str, tokens: Tensor) -> Tensor:
        """The same of tokens [..., rows, k] only: a vocabulary's worth of memory is slow."""
        place = self.place(member)
        return at(self.logits[place], tokens) - self.normalizers[place]

    def advantage(self, reward: str, tokens: Tensor) -> Tensor:
        """beta·log(member / reference) of tokens [..., rows, k]; 0 where forbidden."""
        found = self.cast.rewards[reward]
        ratio = self.of_tokens(found.member, tokens)
        if found.reference is not None:
            ratio = ratio - self.of_tokens(found.reference, tokens)
        return (found.beta * ratio).masked_fill(at(self.logits[0], tokens).isneginf(), 0.0)


def _normalizers(logits: Tensor) -> Tensor:
    """Their logsumexp. In steps, since torch's own also looks for rows that forbid everything."""
    peaks = logits.amax(-1, keepdim=True)
    return (logits - peaks).exp_().sum(-1, keepdim=True).log_().add_(peaks)


def where(places: Sequence[int], of: Tensor) -> Where:
    """Places in `of` as an index: neighbours are a slice, since that copies nothing."""
    first = places[0]
    if [*places] == [*range(first, first + len(places))]:
        return slice(first, first + len(places))
    return torch.tensor(places, device=of.device)


def few(logits: Tensor) -> int:
    """Rows of [policies, rows, vocabulary] that stay in a cache while they are worked on."""
    each = max(1, logits[:, :1].numel())
    return max(1, CACHED // each) if logits.device.type == "cpu" else max(1, logits.shape[1])


def at(row: Tensor, tokens: Tensor) -> Tensor:
    """The values of [rows, vocabulary] at tokens [..., rows, k]."""
    return row.expand(*tokens.shape[:-1], -1).gather(-1, tokens)


def biases(wanted: Sequence[Mapping[int, float]], like: Tensor) -> Tensor | None:
    """A step's `bias` from what each row's request adds by token, as wide as `like`."""
    if not any(wanted):
        return None
    found = torch.zeros_like(like)
    for row, each in zip(found, wanted, strict=True):
        row[list(each)] = row.new_tensor(list(each.values()))
    return found


def numbers(what: str, *parts: Tensor) -> None:
    """ValueError unless all are finite: what is no number compares to nothing."""
    if not all(bool(part.isfinite().all()) for part in parts):
        raise ValueError(f"{what} are not all finite")


@dataclass(frozen=True)
class Verdict:
    """What a rule says of each row.

    `logits` [rows, vocabulary] are the distribution that speaks, whose log-probabilities a client
    sees; [rows, k] are those of the tokens `among` [rows, k], and nothing else is drawn; None says
    that they are the speaker's own. `tokens` [rows] are set where the rule settles the token
    itself, else it is drawn. `speakers` [rows] are the policies that speak, None where it is a
    mixture. `notes` tell of each row why, by name: for the trace.
    """

    logits: Tensor | None = None
    among: Tensor | None = None
    tokens: Tensor | None = None
    speakers: Tensor | None = None
    notes: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def spoken(self, step: Step) -> Tensor:
        """The distribution that speaks, [rows, vocabulary]. RuleFault where nobody does."""
        if self.logits is None:
            return step.biased(self.own(step.logits))
        if self.among is None:
            return self.logits
        row = torch.full_like(step.logits[0], float("-inf"))
        return row.scatter(-1, self.among, self.logits.to(row.dtype))

    def own(self, each: Tensor) -> Tensor:
        """The speakers' rows of [policies, rows, ...]. RuleFault where nobody speaks."""
        if self.speakers is None:
            raise RuleFault("it has neither logits nor speakers")
        return each[self.speakers, torch.arange(len(self.speakers), device=each.device)]


Choose = Callable[[Step, Any], Verdict]


@dataclass(frozen=True)
class PolicyRule:
    """A rule by name, with the type of its parameters."""

    name: str
    parameters: type[Parameters]
    choose: Choose
    summary: str


def rule(name: str, parameters: type[Parameters]) -> Callable[[Choose], PolicyRule]:
    """Registers the decorated function as the rule `name`; its file has the same name."""

    def register(choose: Choose) -> PolicyRule:
        summary = (choose.__doc__ or "").strip().partition("\n")[0]
        return PolicyRule(name, parameters, choose, summary)

    return register
