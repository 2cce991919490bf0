"""Always the same policy: what an ensemble is checked by, and how one member is asked."""

import torch
from pydantic import Field

from engines.rules.core.base import Step, Verdict, rule
from engines.rules.core.cast import Cast, Parameters


class Only(Parameters):
    """Who speaks."""

    policy: str = Field(description="the member that speaks")

    def check(self, cast: Cast) -> None:
        """The member exists."""
        cast.member(self.policy, "policy")


@rule("only", Only)
def only(step: Step, asked: Only) -> Verdict:
    """One policy speaks all the time."""
    index = step.place(asked.policy)
    # Its logits as they are: also the last digit is that of the policy alone.
    logits = step.biased(step.logits[index])
    speakers = torch.full((logits.shape[0],), index, dtype=torch.long, device=logits.device)
    return Verdict(logits, speakers=speakers)
