"""Closed forms for the multipliers of a constrained choice, as the paper may have meant them.

Both replace the dual by a quadratic: where the first puts it at the policy tilted by the primary
reward, the second puts the whole log-partition at the base policy. They promise nothing: each
state is checked afterwards like any other, and violates its constraints often.
"""

from typing import Literal

import torch

from engines.rules.core.box import least_in_box
from engines.rules.core.dual import TOLERANCE, Problem, Solution, Status

Form = Literal["newton", "expansion"]
MOST, ROUNDS = 1e12, 20


def quadratic(given: Problem, form: Form) -> Solution:
    """The multipliers that a quadratic has its least at, and the policy they give.

    `newton` is one Newton step from 0 at base·exp(Q1 / alpha), `expansion` the second order of the
    log-partition at base.
    """
    none = torch.zeros_like(given.std)
    alpha = given.base.new_full((len(given.base), 1), given.alpha)
    at = given.base if form == "expansion" else given.tilted(none, alpha)[0]
    p = at.exp()[:, None]
    mean = (given.excess * p).sum(-1)
    off = given.excess - mean[..., None]
    slope = mean
    if form == "expansion":
        primary = given.primary[:, None]
        slope = (
            mean + (off * (primary - (primary * p).sum(-1, keepdim=True)) * p).sum(-1) / given.alpha
        )
    curve = (off * p) @ off.transpose(-1, -2) / given.alpha
    size = curve.diagonal(dim1=-2, dim2=-1).mean(-1)
    ridge = (1e-9 * size + 1e-12)[:, None, None] * torch.eye(
        curve.shape[-1], dtype=p.dtype, device=p.device
    )
    multipliers = least_in_box(slope, curve + ridge, none, none + MOST, ROUNDS)
    policy = given.tilted(multipliers, alpha)[0].exp()
    margin = given.margin(policy)
    status = torch.where(margin >= -TOLERANCE, Status.CERTIFIED, Status.UNSOLVED)
    return Solution(policy, multipliers / given.std, status, margin)
