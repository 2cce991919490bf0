"""How far policies are from a reference at one step: what keeps agents near it.

It knows no utility and no rule.
"""

import math

import torch
from torch import Tensor

from engines.rules.core.base import Step

MIXTURE, NONE = "mixture", "none"
CACHED = 2**17  # values, half a megabyte
LEAST = -1e4  # stands for a log-probability of -inf: beside a share of 0 that is 0


def against(step: Step, agents: Tensor, reference: str) -> Tensor:
    """The reference's log-probabilities, [rows, vocabulary]: a member's, or the agents' mean."""
    if reference == MIXTURE:
        return agents.logsumexp(0) - math.log(len(agents))
    return step.of(reference)


def divergence(step: Step, agents: Tensor, reference: str) -> Tensor:
    """KL of each agent's next token from the reference's, [agents, rows]; never below 0.

    `agents` are log-probabilities, [agents, rows, vocabulary].
    """
    if reference == NONE:
        return torch.zeros_like(agents[..., 0])
    # A vocabulary's worth for each agent and row is megabytes: a few rows at a time stay in cache.
    few = max(1, CACHED // agents[:, 0].numel()) if agents.device.type == "cpu" else len(agents[0])
    parts = torch.split(agents, few, 1)
    if reference == MIXTURE:
        return torch.cat([_divergence(part) for part in parts], 1)
    rows = torch.split(step.of(reference), few)
    return torch.cat([_divergence(*pair) for pair in zip(parts, rows, strict=True)], 1)


def _divergence(agents: Tensor, row: Tensor | None = None) -> Tensor:
    """The same of some rows; without a `row` from the agents' mean."""
    shares = agents.exp()
    if row is None:
        row = shares.mean(0).clamp_(min=torch.finfo(shares.dtype).tiny).log_()
    # What has no share (forbidden, or too small to be told from 0) counts for nothing.
    terms = (agents - row.clamp(min=LEAST)).clamp_(min=LEAST).mul_(shares)
    return terms.sum(-1).clamp_(min=0.0)
