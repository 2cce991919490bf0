"""Multi-objective decoding: the weighted geometric mean of policies aligned to one objective each.

Source: arXiv 2406.18853. With weights w that sum to 1 it is the optimum for the reward sum w·r
under a reverse KL, whatever the common reference was.
"""

import torch
from pydantic import Field

from engines.rules.core.base import Step, Verdict, rule
from engines.rules.core.cast import Cast, Parameters, RuleFault

NEAR = 1e-6


class Mod(Parameters):
    """Who is mixed, and how much of each."""

    policies: list[str] = Field(min_length=1, max_length=16, description="members to mix")
    weights: list[float] = Field(
        min_length=1, max_length=16, description="one for each policy, at least 0, sum 1"
    )

    def check(self, cast: Cast) -> None:
        """Members exist, and weights are a share each."""
        for name in self.policies:
            cast.member(name, "policies")
        if len(self.weights) != len(self.policies):
            raise RuleFault("weights: one for each of the policies", "weights")
        if min(self.weights) < 0 or abs(sum(self.weights) - 1) > NEAR:
            raise RuleFault("weights: at least 0 each, and 1 in all", "weights")


@rule("mod", Mod)
def mod(step: Step, asked: Mod) -> Verdict:
    """The next token is drawn from the product of the policies, each to its weight's power."""
    members = torch.stack([step.of(name) for name in asked.policies])
    weights = torch.tensor(asked.weights, dtype=members.dtype, device=members.device)
    mixed = (weights[:, None, None] * members).sum(0)
    return Verdict(step.biased(mixed).masked_fill(step.forbidden, float("-inf")))
