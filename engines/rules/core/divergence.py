"""How far policies are from a reference at one step: what keeps agents near it.

It knows no utility and no rule.
"""

import math

import torch
from torch import Tensor

from engines.rules.core.base import Step

MIXTURE, NONE = "mixture", "none"


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
    terms = agents.exp() * (agents - against(step, agents, reference))
    return terms.masked_fill(~step.allowed, 0.0).sum(-1).clamp(min=0.0)
