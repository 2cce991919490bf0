"""What each agent would say next: for whoever chooses among candidates outside of the worker.

One step of the whole ensemble tells of all agents at once, where asking them one by one would step
all members each time. What is said itself is the first agent's; the candidates are in the notes.
"""

from pydantic import Field

from engines.rules.core.base import Step, Verdict, rule
from engines.rules.core.candidates import likeliest
from engines.rules.core.cast import Cast, Parameters, RuleFault
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
        for name in self.agents or ():
            cast.member(name, "agents")
        if len(set(self.agents or ())) != len(self.agents or ()):
            raise RuleFault("agents: each may be named once", "agents")
        if self.reference not in (MIXTURE, NONE):
            cast.member(self.reference, "reference")


@rule("propose", Propose)
def propose(step: Step, asked: Propose) -> Verdict:
    """Each agent's likeliest tokens, with its divergence from the reference, in the notes."""
    names = list(asked.agents or step.cast.policies)
    places = [step.cast.members.index(name) for name in names]
    agents = step.logprobs[places]
    tokens, values = likeliest(agents, asked.candidates)
    notes = {
        "agents": [names] * tokens.shape[1],
        "tokens": tokens.transpose(0, 1).tolist(),
        "logprobs": values.transpose(0, 1).tolist(),
        "kl": divergence(step, agents, asked.reference).T.tolist(),
    }
    if asked.reference != NONE:
        row = against(step, agents, asked.reference).expand_as(agents)
        notes["reference"] = row.gather(-1, tokens).transpose(0, 1).tolist()
    return Verdict(step.logits[places[0]], notes=notes)
