"""What each agent would say next: for whoever chooses among candidates outside of the worker.

One step of the whole ensemble tells of all agents at once, where asking them one by one would step
all members each time. What is said itself is the first agent's; the candidates are in the notes.
"""

from pydantic import Field

from engines.rules.core.base import Step, Verdict, rule
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
    logprobs = values - step.normalizers[step.places(names)]
    notes = {
        "agents": [names] * tokens.shape[1],
        "tokens": tokens.transpose(0, 1).tolist(),
        "logprobs": logprobs.transpose(0, 1).tolist(),
        "kl": divergence(step, names, asked.reference).T.tolist(),
    }
    if asked.reference != NONE:
        found = against(step, names, asked.reference, tokens)
        notes["reference"] = found.transpose(0, 1).tolist()
    return Verdict(step.logits[step.place(names[0])], notes=notes)
