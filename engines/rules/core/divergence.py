"""How far policies are from a reference at one step: what keeps agents near it.

It knows no utility and no rule.
"""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from engines.rules.core.base import Step, Where, few

MIXTURE, NONE = "mixture", "none"
LEAST = -1e4  # stands for a log-probability of -inf: beside a share of 0 that is 0


def against(step: Step, agents: Sequence[str], reference: str, tokens: Tensor) -> Tensor:
    """The reference's log-probabilities of tokens [..., rows, k]; the mixture is the mean."""
    if reference == MIXTURE:
        found = torch.stack([step.of_tokens(name, tokens) for name in agents])
        return found.logsumexp(0) - math.log(len(agents))
    return step.of_tokens(reference, tokens)


def divergence(step: Step, agents: Sequence[str], reference: str) -> Tensor:
    """KL of each agent's next token from the reference's, [agents, rows]; never below 0."""
    _, rows, _ = step.logits.shape
    if reference == NONE:
        return step.logits.new_zeros(len(agents), rows)
    speaking, own = step.places(agents), None if reference == MIXTURE else step.place(reference)
    # A vocabulary's worth for each agent and row is megabytes: a few rows at a time stay in cache.
    size = few(step.logits)
    parts = [slice(at, at + size) for at in range(0, rows, size)]
    found = torch.cat([_divergence(step, part, speaking, own) for part in parts], 1)
    return (found if own is not None else found + math.log(len(found))).clamp_(min=0.0)


def _divergence(step: Step, rows: slice, speaking: Where, own: int | None) -> Tensor:
    """The same of some rows, from the member at `own`, or without one from the agents' sum."""
    logprobs = step.logits[speaking, rows] - step.normalizers[speaking, rows]
    shares = logprobs.exp()
    if own is None:
        tiny = torch.finfo(shares.dtype).tiny
        row = reduce(torch.add, shares.unbind()).clamp(min=tiny).log_()
    else:
        row = (step.logits[own, rows] - step.normalizers[own, rows]).clamp_(min=LEAST)
    # What has no share (forbidden, or too small to be told from 0) counts for nothing.
    return logprobs.sub_(row).clamp_(min=LEAST).mul_(shares).sum(-1)
