"""How far policies are from a reference at one step: what keeps agents near it.

It knows no utility and no rule.
"""

import math

import torch
from torch import Tensor

from engines.rules.core.base import Step

MIXTURE, NONE = "mixture", "none"
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
    # In place where it can be: a vocabulary's worth for each agent and row is megabytes.
    shares = agents.exp()
    if reference == MIXTURE:
        row = shares.mean(0).clamp_(min=torch.finfo(shares.dtype).tiny).log_()
    else:
        row = step.of(reference).clamp(min=LEAST)
    # What has no share (forbidden, or too small to be told from 0) counts for nothing.
    terms = (agents - row).clamp_(min=LEAST).mul_(shares)
    return terms.sum(-1).clamp_(min=0.0)
