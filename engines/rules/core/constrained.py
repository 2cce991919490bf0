"""A constrained choice among candidates: the policy to draw from, or the one token to take.

The same for a batch of rows in the worker and for one row outside of it. It knows no policies.
"""

from typing import Literal

import numpy as np

from engines.rules.core.box import Floats
from engines.rules.core.closed import quadratic
from engines.rules.core.dual import Ints, Problem, Solution, Status, solved

Solver = Literal["exact", "newton", "expansion"]


def answered(given: Problem, solver: Solver) -> Solution:
    """The policy over the candidates, by the solver that is asked for."""
    if given.excess.shape[1] == 0:
        policy = given.tilted(given.std, given.alphas)[0]
        certified = np.full(len(policy), Status.CERTIFIED, dtype=np.int64)
        return Solution(policy, given.std, certified, np.full(len(policy), np.inf))
    return solved(given) if solver == "exact" else quadratic(given, solver)


def argmax(given: Problem) -> tuple[Ints, Floats, Floats]:
    """(place of the token, its worth, its worst constraint in standard deviations), [rows] each.

    The best of Q1 + alpha·log base among those that satisfy everything, else the least violating.
    """
    worth = np.where(given.real, given.primary + given.alpha * given.base, -np.inf)
    if given.excess.shape[1] == 0:
        return worth.argmax(-1), worth.max(-1), np.full(len(worth), np.inf)
    slack = np.where(given.real, given.excess.min(1), -np.inf)
    fits = slack >= 0
    best = np.where(fits, worth, -np.inf).argmax(-1)
    least = slack.max(-1, keepdims=True)
    closest = np.where(slack < least, -np.inf, worth).argmax(-1)
    place = np.where(fits.any(-1), best, closest)
    rows = np.arange(len(place))
    return place, worth[rows, place], slack[rows, place]
