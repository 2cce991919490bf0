"""Collab in its implicit form: for each token the agent speaks whose token is worth most.

Source: arXiv 2503.21720. The utility of a token v that agent j proposes is A(v) - alpha·KL_j, where
A is the advantage of an autoregressive *target* reward and KL_j is how far the agent's next-token
distribution is from the reference: constant over v, so it arbitrates between agents only.

Ratios of an agent to the reference speak of the agent's own reward and cannot be compared across
agents; less a token KL they vanish or turn round. So a target is required, and the weighted sum of
such ratios is the rule `mod`. Tokens below a tenth of an agent's best are no candidates
(arXiv 2210.15097): ratios of improbable tokens are noise.
"""

import math

import torch
from pydantic import Field
from torch import Tensor

from engines.rules.core.base import Step, Verdict, numbers, rule
from engines.rules.core.candidates import proposed
from engines.rules.core.cast import Cast, Parameters, RuleFault
from engines.rules.core.divergence import MIXTURE, NONE, divergence


class Collab(Parameters):
    """Who proposes, what is wanted, and what keeps agents near the reference."""

    target: str = Field(description="the reward that is wanted, by its name in the ensemble")
    agents: list[str] | None = Field(
        None, min_length=1, max_length=16, description="members that speak; null = all policies"
    )
    candidates: int = Field(10, ge=1, le=64, description="tokens of each agent (the paper's p)")
    alpha: float = Field(1.0, ge=0, le=1e6, description="weight of the divergence")
    reference: str = Field(
        MIXTURE, description="a member's name, `mixture` (the agents' mean) or `none`"
    )
    plausible: float = Field(
        0.1, ge=0, le=1, description="least share of an agent's best probability"
    )

    def check(self, cast: Cast) -> None:
        """All names exist, each agent once; a divergence has something to diverge from."""
        cast.reward(self.target, "target")
        cast.agents(self.agents)
        if self.reference not in (MIXTURE, NONE):
            cast.member(self.reference, "reference")
        if self.reference == NONE and self.alpha != 0:
            raise RuleFault("reference: none needs alpha = 0", "reference")


@rule("collab", Collab)
def collab(step: Step, asked: Collab) -> Verdict:
    """The token with the highest utility over all agents; ties go to the agent named first."""
    names = list(asked.agents or step.cast.policies)
    tokens, values = proposed(step, names, asked.candidates)
    utility = step.advantage(asked.target, tokens)
    kl = divergence(step, names, asked.reference if asked.alpha else NONE)
    worth = utility - asked.alpha * kl[:, :, None]
    cut = math.log(asked.plausible) if asked.plausible else float("-inf")
    # Also what is forbidden: it is -inf, and below any cut of a row that allows something.
    out = (values < values[..., :1] + cut) | torch.isneginf(values)
    agents = step.normalizers[step.places(names)]
    numbers("the agents' probabilities and utilities", agents, worth.masked_fill(out, 0.0))
    worth = worth.masked_fill(out, float("-inf"))
    places = torch.tensor([step.place(name) for name in names], device=kl.device)
    return picked(places, tokens, worth, kl)


def picked(places: Tensor, tokens: Tensor, worth: Tensor, kl: Tensor) -> Verdict:
    """The best of [agents, rows, candidates]; of equals the first agent's likeliest."""
    _, rows, width = worth.shape
    flat = worth.permute(1, 0, 2).reshape(rows, -1)
    at = flat.argmax(-1)
    each = torch.arange(rows, device=at.device)
    agent = at // width
    chosen = tokens.permute(1, 0, 2).reshape(rows, -1)[each, at]
    best = worth.amax(-1)
    notes = {
        "utility": flat[each, at].tolist(),
        "kl": kl[agent, each].tolist(),
        "best": best.T.tolist(),
    }
    return Verdict(tokens=chosen, speakers=places[agent], notes=notes)
