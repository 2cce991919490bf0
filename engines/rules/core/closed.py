"""Closed forms for the multipliers of a constrained choice, as the paper may have meant them.

Both replace the dual by a quadratic: where the first puts it at the policy tilted by the primary
reward, the second puts the whole log-partition at the base policy. They promise nothing: each
state is checked afterwards like any other, and violates its constraints often.
"""

from typing import Literal

import numpy as np

from engines.rules.core.box import least_in_box
from engines.rules.core.dual import TOLERANCE, Problem, Solution, Status, moments

Form = Literal["newton", "expansion"]
MOST, ROUNDS = 1e12, 20


def quadratic(given: Problem, form: Form) -> Solution:
    """The multipliers that a quadratic has its least at, and the policy they give.

    `newton` is one Newton step from 0 at base·exp(Q1 / alpha), `expansion` the second order of the
    log-partition at base.
    """
    none = np.zeros_like(given.std)
    p = np.exp(given.base) if form == "expansion" else given.tilted(none, given.alphas)[0]
    slope, off, curve = moments(given.excess, p, given.alphas)
    if form == "expansion":
        primary = given.primary - (given.primary * p).sum(-1, keepdims=True)
        slope = slope + (off @ (primary * p)[..., None])[..., 0] / given.alpha
    multipliers = least_in_box(slope, curve, none, none + MOST, ROUNDS)
    policy = given.tilted(multipliers, given.alphas)[0]
    margin = given.margin(policy)
    status = np.where(margin >= -TOLERANCE, Status.CERTIFIED, Status.UNSOLVED).astype(np.int64)
    return Solution(policy, multipliers / given.std, status, margin)
