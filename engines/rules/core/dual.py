"""The certified solver of a constrained choice: maximise a primary reward near a base policy while
the expectations of others stay above bounds.

max over p of E_p[Q1] - alpha·KL(p || base) subject to E_p[Qi] >= bound_i has the dual
g(lam) = alpha·log sum base·exp((Q1 + sum lam_i·(Qi - bound_i)) / alpha) over lam >= 0, minimised by
a trust-region Newton method within a box, with alpha annealed where that fails. Each state comes
out certified, infeasible or unsolved. All in float64, rows of a batch side by side; it knows no
policies. The states no multiplier can serve are few: they go to a linear programme one by one.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from engines.rules.core.box import least_in_box

TOLERANCE = 1e-3  # of a constraint's standard deviation
STEPS = 100
ROUNDS = 20  # of the quadratic's own solver, for the few states that need more than one
NARROW, GOOD, WIDER, FIRST = 0.05, 0.5, 4.0, 4.0


class Status(IntEnum):
    """What is known of a state."""

    CERTIFIED = 0
    INFEASIBLE = 1
    UNSOLVED = 2


@dataclass(frozen=True)
class Problem:
    """States side by side. `base` [rows, k] log-probabilities, -inf for no candidate; `primary`
    [rows, k]; `constrained` [rows, m, k] with `bounds` [rows, m]; all float64.

    `excess` is (Q - bound) / std, [rows, m, k]: what multipliers are in units of.
    """

    base: Tensor
    primary: Tensor
    alpha: float
    excess: Tensor
    std: Tensor

    @property
    def real(self) -> Tensor:
        """Which places hold a candidate, [rows, k]."""
        return torch.isfinite(self.base)

    def rows(self, at: Tensor) -> "Problem":
        """Some of the states."""
        return replace(
            self, base=self.base[at], primary=self.primary[at], excess=self.excess[at],
            std=self.std[at],
        )  # fmt: skip

    def tilted(
        self, multipliers: Tensor, alpha: Tensor, slack: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """(log p, g) at multipliers [rows, m] and temperatures alpha [rows, 1]."""
        gained = (multipliers[:, :, None] * (self.excess + slack)).sum(1)
        row = self.base + (self.primary + gained) / alpha
        total = row.logsumexp(-1, keepdim=True)
        return row - total, alpha[:, 0] * total[:, 0]

    def margin(self, policy: Tensor) -> Tensor:
        """How far the worst constraint holds under p [rows, k], in standard deviations."""
        return (self.excess * policy[:, None]).sum(-1).amin(-1)


@dataclass(frozen=True)
class Solution:
    """`policy` [rows, k], `multipliers` [rows, m] in units of the rewards, `status` and `margin`
    [rows], the latter in standard deviations of the worst constraint.
    """

    policy: Tensor
    multipliers: Tensor
    status: Tensor
    margin: Tensor


def problem(
    base: Tensor, primary: Tensor, constrained: Tensor, bounds: Tensor, alpha: float
) -> Problem:
    """States as they are given: [rows, k], [rows, k], [rows, m, k], [rows, m] or [m].

    A constraint's standard deviation is taken over the state's candidates.
    """
    base, primary, constrained = base.double(), primary.double(), constrained.double()
    real = torch.isfinite(base)
    base = base.log_softmax(-1)
    count = real.sum(-1)[:, None, None]
    here = constrained.masked_fill(~real[:, None], 0.0)
    mean = here.sum(-1, keepdim=True) / count
    off = (constrained - mean).masked_fill(~real[:, None], 0.0)
    std = ((off**2).sum(-1, keepdim=True) / count).sqrt()
    std = torch.where(std > 1e-9, std, torch.ones_like(std))
    excess = (constrained - bounds.double().expand(here.shape[:2])[..., None]) / std
    excess = excess.masked_fill(~real[:, None], 0.0)
    return Problem(base, primary.masked_fill(~real, 0.0), alpha, excess, std[..., 0])


def solved(given: Problem) -> Solution:
    """The multipliers of every state, with a certificate of what became of it."""
    rows = len(given.base)
    alpha = given.base.new_full((rows, 1), given.alpha)
    multipliers, infeasible = _descended(given, given.excess.new_zeros(given.std.shape), alpha)
    bad = ~infeasible & ~_certified(given, multipliers)
    if bool(bad.any()):
        part = given.rows(bad)
        again, impossible = _annealed(part)
        multipliers[bad], infeasible[bad] = again, impossible
    policy = given.tilted(multipliers, alpha)[0].exp()
    status = torch.where(_certified(given, multipliers), Status.CERTIFIED, Status.UNSOLVED)
    status = torch.where(infeasible, Status.INFEASIBLE, status)
    left = torch.nonzero(status != Status.CERTIFIED)[:, 0]
    if len(left):
        policy[left], best = nearest(given.rows(left))
        status[left[best < -TOLERANCE]] = Status.INFEASIBLE
    return Solution(policy, multipliers / given.std, status, given.margin(policy))


def _certified(given: Problem, multipliers: Tensor) -> Tensor:
    """Whether the original bounds hold to within the tolerance, [rows]."""
    alpha = given.base.new_full((len(given.base), 1), given.alpha)
    return given.margin(given.tilted(multipliers, alpha)[0].exp()) >= -TOLERANCE


def _annealed(given: Problem) -> tuple[Tensor, Tensor]:
    """From a temperature as wide as the primary's range down to alpha, halving, warm-started."""
    top = given.primary.masked_fill(~given.real, float("-inf")).amax(-1)
    low = given.primary.masked_fill(~given.real, float("inf")).amin(-1)
    alpha = ((top - low) / 2).clamp(min=given.alpha)[:, None]
    multipliers = torch.zeros_like(given.std)
    while True:
        multipliers, infeasible = _descended(given, multipliers, alpha, ROUNDS)
        if bool((alpha <= given.alpha).all()):
            return multipliers, infeasible
        alpha = (alpha / 2).clamp(min=given.alpha)


def _caps(given: Problem) -> tuple[Tensor, Tensor]:
    """(the most a multiplier can be if the state is feasible, the least g then), [rows] each."""
    inside = (given.primary + given.alpha * given.base).masked_fill(~given.real, float("inf"))
    top = given.primary.masked_fill(~given.real, float("-inf")).amax(-1)
    low = given.primary.masked_fill(~given.real, float("inf")).amin(-1)
    rarest = given.base.masked_fill(~given.real, 0.0).amin(-1)
    return 2 * (top - low - given.alpha * rarest) / TOLERANCE, inside.amin(-1)


def _descended(
    given: Problem, start: Tensor, alpha: Tensor, rounds: int = 1
) -> tuple[Tensor, Tensor]:
    """(multipliers, which states are proven infeasible) after trust-region steps from `start`."""
    slack = TOLERANCE / 2
    cap, least = _caps(given)
    cap = cap[:, None].expand_as(start)
    multipliers, infeasible = start.clone(), torch.zeros_like(cap[:, 0], dtype=torch.bool)
    radius = torch.full_like(alpha, FIRST)
    final = alpha[:, 0] <= given.alpha
    at = torch.arange(len(start), device=start.device)
    for _ in range(STEPS):
        part, lam = given.rows(at), multipliers[at]
        slope, curve, value = _local(part, lam, alpha[at], slack)
        lost = final[at] & (value < least[at] - 1e-9 * least[at].abs())
        infeasible[at] = lost
        going = ~lost & (_slope_left(slope, lam, cap[at]) > slack)
        if not bool(going.any()):
            break
        at, lam, part = at[going], lam[going], part.rows(going)
        slope, curve, value = slope[going], curve[going], value[going]
        room = radius[at] * alpha[at]
        step = least_in_box(
            slope, curve, (-lam).maximum(-room), (cap[at] - lam).minimum(room), rounds
        )
        expected = -(
            (slope * step).sum(-1) + (step * (curve @ step[..., None])[..., 0]).sum(-1) / 2
        )
        actual = value - part.tilted(lam + step, alpha[at], slack)[1]
        reach = step.abs().amax(-1, keepdim=True)
        good = actual >= NARROW * expected
        multipliers[at] = torch.where(good[:, None], lam + step, lam)
        wide = (actual >= GOOD * expected)[:, None] & (reach >= room * (1 - 1e-9))
        grown = torch.where(wide, radius[at] * WIDER, radius[at])
        radius[at] = torch.where(good[:, None], grown, reach / alpha[at] / WIDER)
    return multipliers, infeasible


def _local(
    given: Problem, multipliers: Tensor, alpha: Tensor, slack: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient [rows, m], ridged Hessian [rows, m, m] and value [rows] of the dual."""
    logp, value = given.tilted(multipliers, alpha, slack)
    p = logp.exp()[:, None]
    relaxed = given.excess + slack
    slope = (relaxed * p).sum(-1)
    off = relaxed - slope[..., None]
    curve = (off * p) @ off.transpose(-1, -2) / alpha[..., None]
    size = curve.diagonal(dim1=-2, dim2=-1).mean(-1)
    ridge = (1e-9 * size + 1e-12)[:, None, None] * torch.eye(
        curve.shape[-1], dtype=p.dtype, device=p.device
    )
    return slope, curve + ridge, value


def _slope_left(slope: Tensor, multipliers: Tensor, cap: Tensor) -> Tensor:
    """The largest component of the projected gradient on [0, cap], [rows]."""
    down = torch.where(multipliers < cap, (-slope).clamp(min=0), torch.zeros_like(slope))
    up = torch.where(multipliers > 0, slope.clamp(min=0), torch.zeros_like(slope))
    return torch.maximum(down, up).amax(-1)


def nearest(given: Problem) -> tuple[Tensor, Tensor]:
    """(the policy of every state whose worst constraint is best, how well it does), [rows, k] and
    [rows]. With one constraint that is one token.
    """
    if given.excess.shape[1] == 1:
        slack = given.excess[:, 0].masked_fill(~given.real, float("-inf"))
        best, place = slack.max(-1)
        return torch.nn.functional.one_hot(place, slack.shape[-1]).to(slack.dtype), best
    found = [closest(excess, real) for excess, real in zip(given.excess, given.real, strict=True)]
    best = given.base.new_tensor([value for _, value in found])
    return torch.stack([policy for policy, _ in found]), best


def closest(excess: Tensor, real: Tensor) -> tuple[Tensor, float]:
    """(the policy of one state whose worst constraint is best, how well it does).

    `excess` [m, k] in standard deviations. A small linear programme.
    """
    policy = torch.zeros_like(excess[0])
    here = excess[:, real].cpu().numpy()
    count = here.shape[1]
    found = linprog(
        np.append(np.zeros(count), -1.0),
        A_ub=np.hstack([-here, np.ones((len(here), 1))]),
        b_ub=np.zeros(len(here)),
        A_eq=np.append(np.ones(count), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * count + [(None, None)],
    )
    weights = np.clip(found.x[:count], 0, None)
    weights = weights / weights.sum()
    policy[real] = torch.as_tensor(weights, dtype=policy.dtype, device=policy.device)
    return policy, float((here @ weights).min())
