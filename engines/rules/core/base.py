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

from engines.rules.core.cast import Cast, Parameters


@dataclass(frozen=True)
class Step:
    """One step of the rows that share a rule. `logits` are [policies, rows, vocabulary].

    What is forbidden (banned, outside a grammar) is -inf in every policy. `greedy` says that these
    rows are decoded at temperature 0.
    """

    cast: Cast
    logits: Tensor
    greedy: bool = False

    @cached_property
    def logprobs(self) -> Tensor:
        """Natural log-probabilities, [policies, rows, vocabulary]."""
        return self.logits.log_softmax(-1)

    @cached_property
    def allowed(self) -> Tensor:
        """Which tokens may be drawn, [rows, vocabulary]."""
        return ~torch.isneginf(self.logits[0])

    def of(self, member: str) -> Tensor:
        """One member's log-probabilities, [rows, vocabulary]."""
        return self.logprobs[self.cast.members.index(member)]

    def advantage(self, reward: str, tokens: Tensor) -> Tensor:
        """beta·log(member / reference) of tokens [..., rows, k]; 0 where forbidden."""
        found = self.cast.rewards[reward]
        ratio = at(self.of(found.member), tokens)
        if found.reference is not None:
            ratio = ratio - at(self.of(found.reference), tokens)
        return (found.beta * ratio).masked_fill(~at(self.allowed, tokens), 0.0)


def at(row: Tensor, tokens: Tensor) -> Tensor:
    """The values of [rows, vocabulary] at tokens [..., rows, k]."""
    return row.expand(*tokens.shape[:-1], -1).gather(-1, tokens)


@dataclass(frozen=True)
class Verdict:
    """What a rule says of each row.

    `logits` [rows, vocabulary] are the distribution that speaks, whose log-probabilities a client
    sees. `tokens` [rows] are set where the rule settles the token itself, else it is drawn.
    `speakers` [rows] are the policies that speak, None where it is a mixture. `notes` tell of each
    row why, by name: for the trace.
    """

    logits: Tensor
    tokens: Tensor | None = None
    speakers: Tensor | None = None
    notes: Mapping[str, Sequence[Any]] = field(default_factory=dict)


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
