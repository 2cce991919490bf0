"""What each agent would say next: for whoever chooses among candidates outside of the worker.

One step of the whole ensemble tells of all agents at once, where asking them one by one would step
all members each time. What is said itself is the first agent's; the candidates are in the notes.
"""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from engines.rules.core.base import Step, Verdict, numbers, rule
from engines.rules.core.candidates import proposed
from engines.rules.core.cast import Cast, Parameters
from engines.rules.core.divergence import MIXTURE, NONE, against, divergence


class Propose(Parameters):
    """Whose candidates, how many, and what they are compared to."""

    agents: list[str] | None = Field(
        None, min_length=1, max_length=16, description="members that propose; null = all policies"
    )
    candidates: int = Field(10, ge=1, le=1024, description="tokens of each agent")
    reference: str = Field(NONE, description="a member's name, `mixture` or `none`")

    def check(self, cast: Cast) -> None:
        """All names exist, each agent once."""
        cast.agents(self.agents)
        if self.reference not in (MIXTURE, NONE):
            cast.member(self.reference, "reference")


@rule("propose", Propose)
def propose(step: Step, asked: Propose) -> Verdict:
    """Each agent's likeliest tokens, with its divergence from the reference, in the notes."""
    names = list(asked.agents or step.cast.policies)
    tokens, values = proposed(step, names, asked.candidates)
    normalizers = spoken(step, names)
    kl = divergence(step, names, asked.reference)
    numbers("the agents' probabilities and divergences", normalizers, kl)
    logprobs = values - normalizers
    notes = {
        "agents": [names] * tokens.shape[1],
        "tokens": tokens.transpose(0, 1).tolist(),
        "logprobs": logprobs.transpose(0, 1).tolist(),
        "kl": kl.T.tolist(),
    }
    if asked.reference != NONE:
        found = against(step, names, asked.reference, tokens)
        notes["reference"] = found.transpose(0, 1).tolist()
    return Verdict(step.biased(step.logits[step.place(names[0])]), notes=notes)


def spoken(step: Step, agents: Sequence[str]) -> Tensor:
    """The agents' normalizers as they would speak, [agents, rows, 1]."""
    places = step.places(agents)
    if step.bias is None:
        return step.normalizers[places]
    return step.biased(step.logits[places]).logsumexp(-1, keepdim=True)
