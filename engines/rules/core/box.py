"""The least of a convex quadratic within a box, for many rows at once.

A few sweeps of coordinate descent find which sides of the box hold; the rest is solved exactly on
those sides, where that is better. For one variable the first sweep is exact.
"""

import torch
from torch import Tensor

SWEEPS = 4


def least_in_box(
    slope: Tensor, curve: Tensor, low: Tensor, high: Tensor, rounds: int = 1
) -> Tensor:
    """argmin of slope·d + d'·curve·d / 2 over low <= d <= high, [rows, n]; 0 is in the box.

    `curve` is [rows, n, n], positive definite. More `rounds` come closer where sides change hands.
    """
    step = torch.zeros_like(slope)
    if slope.shape[-1] == 1:
        return (-slope / curve[..., 0]).clamp(low, high)
    for _ in range(rounds):
        step = _swept(step, slope, curve, low, high)
        exact = _on_sides(step, slope, curve, low, high)
        better = value(exact, slope, curve) < value(step, slope, curve)
        step = torch.where(better[:, None], exact, step)
    return step


def value(step: Tensor, slope: Tensor, curve: Tensor) -> Tensor:
    """The quadratic at `step`, [rows]."""
    return ((slope + (curve @ step[..., None])[..., 0] / 2) * step).sum(-1)


def _swept(step: Tensor, slope: Tensor, curve: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """A few rounds over the coordinates, each put at its least while the others stand."""
    own = curve.diagonal(dim1=-2, dim2=-1)
    step = step.clone()
    for turn in range(SWEEPS * slope.shape[-1]):
        i = turn % slope.shape[-1]
        pull = slope[:, i] + (curve[:, i] * step).sum(-1)
        step[:, i] = (step[:, i] - pull / own[:, i]).clamp(low[:, i], high[:, i])
    return step


def _on_sides(step: Tensor, slope: Tensor, curve: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The exact least with the coordinates that are at a side held there, cut to the box."""
    free = (step > low) & (step < high)
    held = torch.where(free, torch.zeros_like(step), step)
    both = free[:, :, None] & free[:, None]
    eye = torch.eye(step.shape[-1], dtype=step.dtype, device=step.device)
    right = torch.where(free, -slope - (curve @ held[..., None])[..., 0], step)
    exact: Tensor = torch.linalg.solve(torch.where(both, curve, eye), right)
    return exact.clamp(low, high)
