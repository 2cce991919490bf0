"""The least of a convex quadratic within a box, for many rows at once.

A few sweeps of coordinate descent find which sides of the box hold; the rest is solved exactly on
those sides, where that is better. For one variable the first sweep is exact.
"""

import numpy as np
from numpy.typing import NDArray

SWEEPS = 4
SETTLED = 1e-12
Floats = NDArray[np.float64]


def least_in_box(
    slope: Floats, curve: Floats, low: Floats, high: Floats, rounds: int = 1
) -> Floats:
    """argmin of slope·d + d'·curve·d / 2 over low <= d <= high, [rows, n]; 0 is in the box.

    `curve` is [rows, n, n], positive definite. More `rounds` come closer where sides change hands;
    they end once all rows have settled.
    """
    if slope.shape[-1] == 1:
        return np.clip(-slope / curve[..., 0], low, high)
    step = np.zeros_like(slope)
    for left in reversed(range(rounds)):
        before = step
        step = _swept(step, slope, curve, low, high)
        exact = _on_sides(step, slope, curve, low, high)
        better = value(exact, slope, curve) < value(step, slope, curve)
        step = np.where(better[:, None], exact, step)
        if left and np.allclose(step, before, rtol=SETTLED, atol=0):
            break
    return step


def value(step: Floats, slope: Floats, curve: Floats) -> Floats:
    """The quadratic at `step`, [rows]."""
    found: Floats = ((slope + (curve @ step[..., None])[..., 0] / 2) * step).sum(-1)
    return found


def _swept(step: Floats, slope: Floats, curve: Floats, low: Floats, high: Floats) -> Floats:
    """A few rounds over the coordinates, each put at its least while the others stand."""
    own = curve.diagonal(axis1=-2, axis2=-1)
    step = step.copy()
    for turn in range(SWEEPS * slope.shape[-1]):
        i = turn % slope.shape[-1]
        pull = slope[:, i] + (curve[:, i] * step).sum(-1)
        step[:, i] = np.clip(step[:, i] - pull / own[:, i], low[:, i], high[:, i])
    return step


def _on_sides(step: Floats, slope: Floats, curve: Floats, low: Floats, high: Floats) -> Floats:
    """The exact least with the coordinates that are at a side held there, cut to the box."""
    free = (step > low) & (step < high)
    held = np.where(free, 0.0, step)
    both = free[:, :, None] & free[:, None]
    right = np.where(free, -slope - (curve @ held[..., None])[..., 0], step)
    kept = np.where(both, curve, np.eye(step.shape[-1]))
    return np.clip(np.linalg.solve(kept, right[..., None])[..., 0], low, high)
