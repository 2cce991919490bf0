"""A constrained choice among candidates: the policy to draw from, or the one token to take.

The same for a batch of rows in the worker and for one row outside of it. It knows no policies.
"""

from typing import Literal

import torch
from torch import Tensor

from engines.rules.core.closed import quadratic
from engines.rules.core.dual import Problem, Solution, Status, solved

Solver = Literal["exact", "newton", "expansion"]


def answered(given: Problem, solver: Solver) -> Solution:
    """The policy over the candidates, by the solver that is asked for."""
    if given.excess.shape[1] == 0:
        policy = (given.base + given.primary / given.alpha).softmax(-1)
        certified = torch.full_like(policy[:, 0], Status.CERTIFIED, dtype=torch.long)
        return Solution(policy, given.std, certified, torch.full_like(policy[:, 0], torch.inf))
    return solved(given) if solver == "exact" else quadratic(given, solver)


def argmax(given: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """(place of the token, its worth, its worst constraint in standard deviations), [rows] each.

    The best of Q1 + alpha·log base among those that satisfy everything, else the least violating.
    """
    worth = (given.primary + given.alpha * given.base).masked_fill(~given.real, float("-inf"))
    if given.excess.shape[1] == 0:
        return worth.argmax(-1), worth.amax(-1), torch.full_like(worth[:, 0], torch.inf)
    slack = given.excess.amin(1).masked_fill(~given.real, float("-inf"))
    fits = slack >= 0
    best = worth.masked_fill(~fits, float("-inf")).argmax(-1)
    least = slack.amax(-1, keepdim=True)
    nearest = worth.masked_fill(slack < least, float("-inf")).argmax(-1)
    place = torch.where(fits.any(-1), best, nearest)[:, None]
    return place[:, 0], worth.gather(-1, place)[:, 0], slack.gather(-1, place)[:, 0]
