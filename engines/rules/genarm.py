"""GenARM: a base policy times autoregressive reward models, each to a power.

Source: arXiv 2410.08193. The reward of a token is log(reward model), with no reference: an
advantage of its own kind, and the one that those models are trained for. The source's code divides
the sum by (1 + alpha) and draws at temperature T / (1 + alpha); at T that is this sum itself.
"""

from pydantic import Field

from engines.rules.core.base import Step, Verdict, rule
from engines.rules.core.cast import Cast, Parameters, RuleFault


class Genarm(Parameters):
    """Whom the reward models guide, and how strongly each."""

    base: str = Field(description="the member that is guided")
    rewards: list[str] = Field(min_length=1, max_length=8, description="rewards of the ensemble")
    alphas: list[float] = Field(min_length=1, max_length=8, description="the power of each reward")

    def check(self, cast: Cast) -> None:
        """All names exist; one power for each reward."""
        cast.member(self.base, "base")
        for name in self.rewards:
            cast.reward(name, "rewards", against=False)
        if len(self.alphas) != len(self.rewards):
            raise RuleFault("alphas: one for each of the rewards", "alphas")
        if min(self.alphas) < 0:
            raise RuleFault("alphas: at least 0 each", "alphas")


@rule("genarm", Genarm)
def genarm(step: Step, asked: Genarm) -> Verdict:
    """The next token is drawn from base · reward model ^ alpha."""
    row = step.of(asked.base)
    for name, alpha in zip(asked.rewards, asked.alphas, strict=True):
        row = row + alpha * step.of(step.cast.rewards[name].member)
    return Verdict(step.biased(row).masked_fill(step.forbidden, float("-inf")))
