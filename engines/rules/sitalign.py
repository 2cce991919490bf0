"""SITAlign in its implicit form: a base policy tilted to a primary reward while others are held up.

Source: arXiv 2505.23729. Rewards are advantages beta·log(member / reference) of autoregressive
reward models, so a bound on a raw reward has no meaning here: what is held up is the expected
advantage of the next token, E_pi[A_i] >= delta_i. Candidates are the base policy's likeliest ones.

What the solver certifies it certifies of these candidates, these estimates and of sampling. At
temperature 0 the best token that satisfies every constraint is taken, else the least violating one.
"""

import math

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from engines.rules.core.base import Step, Verdict, rule
from engines.rules.core.box import Floats
from engines.rules.core.candidates import likeliest
from engines.rules.core.cast import Cast, Parameters, RuleFault
from engines.rules.core.constrained import Solver, answered, argmax
from engines.rules.core.dual import Solution, Status, problem


class Sitalign(Parameters):
    """What is maximised, what is held up and how far from the base policy one may go."""

    primary: str = Field(description="the reward that is maximised, by its name in the ensemble")
    constrained: list[str] = Field(
        default_factory=list, max_length=6, description="rewards that are held up"
    )
    deltas: list[float] = Field(
        default_factory=list, max_length=6,
        description="least expected advantage of the next token, one for each constrained reward",
    )  # fmt: skip
    base: str | None = Field(
        None, description="the member that is tilted; null = the reference, else the first"
    )
    candidates: int = Field(10, ge=1, le=64, description="tokens considered (the paper's k)")
    alpha: float = Field(1.0, ge=1e-6, le=1e6, description="weight of the divergence from the base")
    solver: Solver = Field(
        "exact", description="certified multipliers, or one of the paper's closed forms"
    )

    def check(self, cast: Cast) -> None:
        """All names exist; one bound for each constrained reward."""
        cast.reward(self.primary, "primary")
        for name in self.constrained:
            cast.reward(name, "constrained")
        if len(self.deltas) != len(self.constrained):
            raise RuleFault("deltas: one for each constrained reward", "deltas")
        if self.base is not None:
            cast.member(self.base, "base")


@rule("sitalign", Sitalign)
def sitalign(step: Step, asked: Sitalign) -> Verdict:
    """The base policy tilted to the primary reward, constrained ones kept above their bounds."""
    cast = step.cast
    place = step.place(asked.base or cast.reference or cast.members[0])
    own = step.biased(step.logits[place])
    tokens, values = likeliest(own, asked.candidates)
    logprobs = values - step.normalizers[place]
    gained = advantages(step, asked, tokens)
    worth = gained.double().numpy(force=True)
    if not np.isfinite(worth).all():
        raise ValueError("a reward member's log-probabilities are not all finite")
    given = problem(
        logprobs.double().numpy(force=True), worth[:, 0], worth[:, 1:], asked.deltas, asked.alpha
    )
    weighed = {"candidates": tokens.tolist(), "advantages": worth.transpose(0, 2, 1).tolist()}
    if step.greedy:
        best, value, margin = argmax(given)
        chosen = tokens.gather(-1, torch.from_numpy(best).to(tokens)[:, None])[:, 0]
        states = ["satisfied" if one >= 0 else "violated" for one in margin.tolist()]
        notes = {"utility": value.tolist(), "state": states, "margin": finite(margin)}
        return Verdict(own, tokens=chosen, notes={**notes, **weighed})
    found = answered(given, asked.solver)
    with np.errstate(divide="ignore"):
        policy = torch.from_numpy(np.log(found.policy)).to(values)
    return Verdict(policy, among=tokens, notes={**told(found), **weighed})


def advantages(step: Step, asked: Sitalign, tokens: Tensor) -> Tensor:
    """Each reward's advantage of each candidate, the primary one's first, [rows, rewards, k]."""
    rewards = [asked.primary, *asked.constrained]
    return torch.stack([step.advantage(name, tokens) for name in rewards], 1)


def told(found: Solution) -> dict[str, list[object]]:
    """What the trace says of each row."""
    names = [Status(status).name.lower() for status in found.status.tolist()]
    multipliers = found.multipliers.tolist()
    return {"multipliers": multipliers, "state": list(names), "margin": finite(found.margin)}


def finite(values: Floats) -> list[object]:
    """As a list, None where nothing constrains."""
    return [value if math.isfinite(value) else None for value in values.tolist()]
