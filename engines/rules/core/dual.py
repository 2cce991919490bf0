"""The certified solver of a constrained choice: maximise a primary reward near a base policy while
the expectations of others stay above bounds.

max over p of E_p[Q1] - alpha·KL(p || base) subject to E_p[Qi] >= bound_i has the dual
g(lam) = alpha·log sum base·exp((Q1 + sum lam_i·(Qi - bound_i)) / alpha) over lam >= 0, minimised by
a trust-region Newton method within a box, with alpha annealed where that fails. Each state comes
out certified, infeasible or unsolved. All in float64, rows of a batch side by side; in NumPy, since
on arrays this small a tensor library takes longer to be called than to compute. It knows no
policies. States with a constraint that no candidate meets are told first, what else nothing
satisfies is told after the descent; with three constraints and more by a linear programme for each.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog

from engines.rules.core.box import Floats, least_in_box

TOLERANCE = 1e-3  # of a constraint's standard deviation
STEPS = 100
ANNEALING = 300  # steps of a state at all temperatures; one that needs more stays unsolved
ROUNDS = 20  # of the quadratic's own solver, for the few states that need more than one
FAR = 1e12  # standard deviations
HALVINGS = 64  # of a temperature, at most; 40 lie between the primary's range and SHARP of it
SHARP = 1e-12  # of the primary's range: an alpha that float64 cannot tell from less
NARROW, GOOD, WIDER, FIRST = 0.05, 0.5, 4.0, 4.0
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class Status(IntEnum):
    """What is known of a state."""

    CERTIFIED = 0
    INFEASIBLE = 1
    UNSOLVED = 2


@dataclass(frozen=True)
class Problem:
    """States side by side. `base` [rows, k] log-probabilities, -inf for no candidate; `primary`
    [rows, k]; `std` [rows, m] of the constrained rewards; all float64.

    `excess` is (Q - bound) / std, [rows, m, k]: what multipliers are in units of.
    """

    base: Floats
    primary: Floats
    alpha: float
    excess: Floats
    std: Floats

    @property
    def real(self) -> Bools:
        """Which places hold a candidate, [rows, k]."""
        return np.isfinite(self.base)

    @property
    def alphas(self) -> Floats:
        """The temperature of every state, [rows, 1]."""
        return np.full((len(self.base), 1), self.alpha)

    def rows(self, at: Bools | Ints) -> "Problem":
        """Some of the states."""
        return replace(
            self, base=self.base[at], primary=self.primary[at], excess=self.excess[at],
            std=self.std[at],
        )  # fmt: skip

    def tilted(
        self, multipliers: Floats, alpha: Floats, slack: float = 0.0
    ) -> tuple[Floats, Floats]:
        """(p [rows, k], g [rows]) at multipliers [rows, m] and temperatures alpha [rows, 1]."""
        gained = (multipliers[:, None] @ (self.excess + slack))[:, 0]
        row = self.base + (self.primary + gained) / alpha
        top = row.max(-1, keepdims=True)
        weights = np.exp(row - top)
        total = weights.sum(-1, keepdims=True)
        return weights / total, (alpha * (top + np.log(total)))[:, 0]

    def margin(self, policy: Floats) -> Floats:
        """How far the worst constraint holds under p [rows, k], in standard deviations."""
        worst: Floats = (self.excess @ policy[..., None])[..., 0].min(-1)
        return worst


@dataclass(frozen=True)
class Solution:
    """`policy` [rows, k], `multipliers` [rows, m] in units of the rewards, `status` and `margin`
    [rows], the latter in standard deviations of the worst constraint.

    Multipliers are 0 where nothing satisfies all constraints and, where a state is unsolved, the
    last ones that were tried; `policy` does not come from them then.
    """

    policy: Floats
    multipliers: Floats
    status: Ints
    margin: Floats


def problem(
    base: ArrayLike, primary: ArrayLike, constrained: ArrayLike, bounds: ArrayLike, alpha: float
) -> Problem:
    """States as they are given: [rows, k], [rows, k], [rows, m, k], [rows, m] or [m].

    A constraint's standard deviation is taken over the state's candidates.
    """
    near, main, held = (np.asarray(part, dtype=np.float64) for part in (base, primary, constrained))
    real = np.isfinite(near)
    top = near.max(-1, keepdims=True)
    near = near - top - np.log(np.exp(near - top).sum(-1, keepdims=True))
    count, inside = real.sum(-1)[:, None, None], real[:, None]
    mean = np.where(inside, held, 0.0).sum(-1, keepdims=True) / count
    off = np.where(inside, held - mean, 0.0)
    std = np.sqrt((off**2).sum(-1, keepdims=True) / count)
    std = np.where(std > 1e-9, std, 1.0)
    least = np.broadcast_to(np.asarray(bounds, dtype=np.float64), held.shape[:2])
    # Bounds beyond all rewards are as hopeless, or as slack, at this distance.
    excess = np.clip((held - least[..., None]) / std, -FAR, FAR)
    excess = np.where(inside, excess, 0.0)
    return Problem(near, np.where(real, main, 0.0), alpha, excess, std[..., 0])


def solved(given: Problem) -> Solution:
    """The multipliers of every state, with a certificate of what became of it."""
    multipliers = np.zeros_like(given.std)
    hoped = np.nonzero(~_hopeless(given))[0]
    if len(hoped):
        part = given if len(hoped) == len(multipliers) else given.rows(hoped)
        multipliers[hoped] = _descended(part, np.zeros_like(part.std), part.alphas)[0]
    policy = given.tilted(multipliers, given.alphas)[0]
    margin = given.margin(policy)
    status = np.where(margin >= -TOLERANCE, Status.CERTIFIED, Status.UNSOLVED).astype(np.int64)
    left = np.nonzero(status == Status.UNSOLVED)[0]
    if len(left):
        policy[left], multipliers[left], status[left] = _left(given.rows(left))
        margin = given.margin(policy)
    return Solution(policy, multipliers / given.std, status, margin)


def _hopeless(given: Problem) -> Bools:
    """States with a constraint that no candidate satisfies, [rows]."""
    best = np.where(given.real[:, None], given.excess, -np.inf).max(-1)
    lost: Bools = (best < -TOLERANCE).any(-1)
    return lost


def _left(given: Problem) -> tuple[Floats, Floats, Ints]:
    """(policy, multipliers, status) of states that a straight descent did not solve.

    What can be solved at all is annealed; the others, and those where that fails as well, come as
    close as can be.
    """
    policy, best = nearest(given)
    multipliers = np.zeros_like(given.std)
    status = np.where(best < -TOLERANCE, Status.INFEASIBLE, Status.UNSOLVED).astype(np.int64)
    feasible = np.nonzero(status == Status.UNSOLVED)[0]
    if len(feasible):
        part = given.rows(feasible)
        found = _annealed(part)
        tilted = part.tilted(found, part.alphas)[0]
        fits = part.margin(tilted) >= -TOLERANCE
        multipliers[feasible] = found
        policy[feasible[fits]], status[feasible[fits]] = tilted[fits], Status.CERTIFIED
    return policy, multipliers, status


def _span(given: Problem) -> tuple[Floats, Floats]:
    """(largest, smallest) primary reward of a state's candidates, [rows] each."""
    top = np.where(given.real, given.primary, -np.inf).max(-1)
    return top, np.where(given.real, given.primary, np.inf).min(-1)


def _annealed(given: Problem) -> Floats:
    """Multipliers: from a temperature as wide as the primary's range, halved down to alpha."""
    top, low = _span(given)
    alpha = np.maximum((top - low) / 2, given.alpha)[:, None]
    multipliers = np.zeros_like(given.std)
    left = np.full(len(multipliers), ANNEALING)
    for _ in range(HALVINGS):
        multipliers, taken = _descended(given, multipliers, alpha, ROUNDS, np.minimum(left, STEPS))
        left -= taken
        # One that is never sharp enough stays unsolved.
        if not left.any() or (alpha <= np.maximum(given.alpha, SHARP * (top - low)[:, None])).all():
            break
        alpha = np.maximum(alpha / 2, given.alpha)
    return multipliers


def _caps(given: Problem) -> tuple[Floats, Floats]:
    """(the most a multiplier can be if the state is feasible, the least g then), [rows] each."""
    real = given.real
    base = np.where(real, given.base, 0.0)
    inside = np.where(real, given.primary + given.alpha * base, np.inf)
    top, low = _span(given)
    return 2 * (top - low - given.alpha * base.min(-1)) / TOLERANCE, inside.min(-1)


@dataclass
class Descent:
    """States on their way: where each is, its dual there and how far a step may go.

    `at` [n] are their places among all, `cap` [n, m] the most a multiplier can be, `least` [n] the
    least dual of a feasible state, `slope` [n, m], `curve` [n, m, m] and `value` [n] the dual at
    `lam` [n, m].
    """

    given: Problem
    at: Ints
    lam: Floats
    alpha: Floats
    radius: Floats
    cap: Floats
    least: Floats
    slope: Floats
    curve: Floats
    value: Floats

    def rows(self, which: Bools) -> "Descent":
        """Some of them."""
        return Descent(
            self.given.rows(which), self.at[which], self.lam[which], self.alpha[which],
            self.radius[which], self.cap[which], self.least[which], self.slope[which],
            self.curve[which], self.value[which],
        )  # fmt: skip

    def stepped(self, rounds: int) -> None:
        """One trust-region step of every state, taken where the dual falls as it should."""
        room = self.radius * self.alpha
        low, high = np.maximum(-self.lam, -room), np.minimum(self.cap - self.lam, room)
        step = least_in_box(self.slope, self.curve, low, high, rounds)
        bent = (self.curve @ step[..., None])[..., 0]
        expected = -((self.slope + bent / 2) * step).sum(-1)
        slope, curve, value = _local(self.given, self.lam + step, self.alpha)
        actual = self.value - value
        reach = np.abs(step).max(-1, keepdims=True)
        good = actual >= NARROW * expected
        wide = (actual >= GOOD * expected)[:, None] & (reach >= room * (1 - 1e-9))
        grown = np.where(wide, self.radius * WIDER, self.radius)
        self.radius = np.where(good[:, None], grown, reach / self.alpha / WIDER)
        self.lam = np.where(good[:, None], self.lam + step, self.lam)
        self.slope = np.where(good[:, None], slope, self.slope)
        self.curve = np.where(good[:, None, None], curve, self.curve)
        self.value = np.where(good, value, self.value)


def _descended(
    given: Problem, start: Floats, alpha: Floats, rounds: int = 1, most: Ints | int = STEPS
) -> tuple[Floats, Ints]:
    """Multipliers after trust-region steps from `start`, at most so many, and how many it took.

    A state seen to be infeasible stops.
    """
    spent = np.broadcast_to(most, len(start)).copy()
    cap, least = _caps(given)
    # While alpha is above its own value the bound on g does not hold yet.
    least = np.where(alpha[:, 0] <= given.alpha, least - 1e-9 * np.abs(least), -np.inf)
    multipliers = start.copy()
    now = Descent(
        given, np.arange(len(start)), start, alpha, np.full_like(alpha, FIRST),
        np.broadcast_to(cap[:, None], start.shape), least, *_local(given, start, alpha),
    )  # fmt: skip
    for taken in range(int(spent.max()) + 1):
        ended = (now.value < now.least) | (_slope_left(now) <= TOLERANCE / 2)
        ended |= taken >= spent[now.at]
        if ended.any():
            multipliers[now.at] = now.lam
            spent[now.at[ended]] = taken
            now = now.rows(~ended)
        if not len(now.at):
            break
        now.stepped(rounds)
    return multipliers, spent


def _local(given: Problem, multipliers: Floats, alpha: Floats) -> tuple[Floats, Floats, Floats]:
    """Gradient [rows, m], ridged Hessian [rows, m, m] and value [rows] of the dual.

    Of bounds that are lower by half the tolerance.
    """
    slack = TOLERANCE / 2
    p, value = given.tilted(multipliers, alpha, slack)
    slope, _, curve = moments(given.excess + slack, p, alpha)
    return slope, curve, value


def moments(excess: Floats, p: Floats, alpha: Floats) -> tuple[Floats, Floats, Floats]:
    """Of constraints [rows, m, k] under p [rows, k]: means, what is off them, covariance / alpha.

    [rows, m], [rows, m, k] and [rows, m, m], with what keeps the last from being singular.
    """
    mean = (excess @ p[..., None])[..., 0]
    off = excess - mean[..., None]
    curve = (off * p[:, None]) @ off.swapaxes(-1, -2) / alpha[..., None]
    size = curve.trace(axis1=-2, axis2=-1) / curve.shape[-1]
    ridge = (1e-9 * size + 1e-12)[:, None, None] * np.eye(curve.shape[-1])
    return mean, off, curve + ridge


def _slope_left(now: Descent) -> Floats:
    """The largest component of the projected gradient on [0, cap], [rows]."""
    down = np.where(now.lam < now.cap, np.maximum(-now.slope, 0), 0.0)
    up = np.where(now.lam > 0, np.maximum(now.slope, 0), 0.0)
    found: Floats = np.maximum(down, up).max(-1)
    return found


def nearest(given: Problem) -> tuple[Floats, Floats]:
    """(the policy of every state whose worst constraint is best, how well it does), [rows, k] and
    [rows]. With one constraint that is one token, with two a mixture of two.
    """
    constraints = given.excess.shape[1]
    if constraints <= 2:
        return _of_two(given)
    found = [closest(excess, real) for excess, real in zip(given.excess, given.real, strict=True)]
    return np.stack([policy for policy, _ in found]), np.array([value for _, value in found])


def _of_two(given: Problem) -> tuple[Floats, Floats]:
    """`nearest` for one or two constraints: the best mixture of any two candidates, [rows, k]."""
    one, two = given.excess[:, 0], given.excess[:, -1]
    ahead = one - two
    # a·t + b·(1 - t) has both constraints equal at t; where both lean to one side, a by itself.
    apart = ahead[:, :, None] - ahead[:, None]
    share = np.divide(-ahead[:, None], apart, out=np.ones_like(apart), where=apart != 0)
    share = np.where((share >= 0) & (share <= 1), share, 1.0)
    worst = np.minimum(
        share * one[:, :, None] + (1 - share) * one[:, None],
        share * two[:, :, None] + (1 - share) * two[:, None],
    )
    both = given.real[:, :, None] & given.real[:, None]
    flat = np.where(both, worst, -np.inf).reshape(len(one), one.shape[-1] ** 2)
    rows, place = np.arange(len(one)), flat.argmax(-1)
    first, second = np.divmod(place, one.shape[-1])
    policy = np.zeros_like(one)
    policy[rows, first] += share[rows, first, second]
    policy[rows, second] += 1 - share[rows, first, second]
    return policy, flat[rows, place]


def closest(excess: Floats, real: Bools) -> tuple[Floats, float]:
    """(the policy of one state whose worst constraint is best, how well it does).

    `excess` [m, k] in standard deviations. A small linear programme.
    """
    policy = np.zeros_like(excess[0])
    here = excess[:, real]
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
    policy[real] = weights
    return policy, float((here @ weights).min())
