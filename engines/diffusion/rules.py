"""Commit rules: which positions of a block are filled at a step. One small pure function each.

A rule reads a `View` of the block and gives a `Choice`; it knows no model, cache or batch. Ties go
to the lowest position. Every rule but the counting ones fills a position at least, so each ends.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]
NONE: Places = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class View:
    """A block as a rule sees it: arrays with an entry per position of the block.

    `confidence` is the candidate's probability, `margin` the likeliest token's lead over the next,
    `entropy` the distribution's; they hold at masked positions, and at all of them for rules that
    look back. There, `held` is the probability that the standing token has now, `same` whether the
    candidate is that token, `before` what was tracked at the step before (NaN: nothing).
    `earned` are the confidences with which the canvas's tokens were committed. `quota` is how many
    are due, `chance` how likely one position is (Dream's random order), `random` keyed noise.
    """

    masked: Flags
    confidence: Floats
    margin: Floats
    entropy: Floats
    held: Floats
    same: Flags
    before: Floats
    earned: Floats
    random: Floats
    quota: int
    chance: float


@dataclass(frozen=True, slots=True)
class Choice:
    """Positions in the block to fill with their candidates, and filled ones to mask again."""

    fill: Places
    remask: Places = field(default_factory=lambda: NONE)


Numbers = Mapping[str, float]


def best(score: Floats, among: Flags, count: int) -> Places:
    """The `count` positions with the highest score, best first, of those `among`."""
    places = np.flatnonzero(among)
    order = np.argsort(-score[places], kind="stable")
    return np.asarray(places[order[:count]], np.int64)


def confidence(view: View, numbers: Numbers) -> Choice:
    """As many as are due, the most confident first (LLaDA's low-confidence remasking)."""
    return Choice(best(view.confidence, view.masked, view.quota))


def random(view: View, numbers: Numbers) -> Choice:
    """As many as are due, in random order."""
    return Choice(best(view.random, view.masked, view.quota))


def margin(view: View, numbers: Numbers) -> Choice:
    """As many as are due, the largest lead over the runner-up first."""
    return Choice(best(view.margin, view.masked, view.quota))


def entropy(view: View, numbers: Numbers) -> Choice:
    """As many as are due, the lowest entropy first."""
    return Choice(best(-view.entropy, view.masked, view.quota))


def origin(view: View, numbers: Numbers) -> Choice:
    """Each position by itself with the step's chance: Dream's own random order."""
    return Choice(np.flatnonzero(view.masked & (view.random < view.chance)))


def threshold(view: View, numbers: Numbers) -> Choice:
    """The most confident, and every other with at least this confidence (Fast-dLLM)."""
    ranked = best(view.confidence, view.masked, view.masked.size)
    sure = view.confidence[ranked] >= numbers["threshold"]
    sure[:1] = True
    return Choice(ranked[sure])


def factor(view: View, numbers: Numbers) -> Choice:
    """The most n whose i-th confidence (i = 2..n) is at least 1 - factor / (i + 1)."""
    ranked = best(view.confidence, view.masked, view.masked.size)
    needed = 1 - numbers["factor"] / (np.arange(1, ranked.size + 1) + 1)
    short = view.confidence[ranked] < needed
    short[:1] = False
    return Choice(ranked[: int(short.argmax()) if short.any() else ranked.size])


def entropy_bound(view: View, numbers: Numbers) -> Choice:
    """The lowest entropies while their sum, the highest left out, stays within gamma."""
    ranked = best(-view.entropy, view.masked, view.masked.size)
    within = np.cumsum(view.entropy[ranked]) - view.entropy[ranked] <= numbers["gamma"]
    within[:1] = True
    return Choice(ranked[within])


def _drafted(view: View, least: int) -> Places:
    """Above the mean of what committed tokens had (1 if there are none); `least` of them at any
    rate."""
    earned = view.earned[~np.isnan(view.earned)]
    bar = earned.mean() if earned.size else 1.0
    sure = view.masked & (view.confidence > bar)
    if sure.sum() >= least:
        return np.flatnonzero(sure)
    return best(view.confidence, view.masked, least)


def _back(draft: int, numbers: Numbers) -> int:
    """How many Saber may mask again after a draft of so many: always fewer than it filled."""
    wanted = max(int(numbers["n"]) // 2, -(-draft // int(numbers["divisor"])))
    return max(0, min(wanted, draft - 1))


def saber(view: View, numbers: Numbers) -> Choice:
    """Saber as its paper has it: what lost most confidence in its own token is masked again."""
    draft = _drafted(view, int(numbers["n"]))
    change = view.held - view.before
    fallen = ~view.masked & (np.nan_to_num(change) < 0)
    return Choice(draft, best(-change, fallen, _back(draft.size, numbers)))


def saber_code(view: View, numbers: Numbers) -> Choice:
    """Saber as its published code has it: by the change of whatever is likeliest there now.

    What was just filled can be masked again, and nothing need have fallen; a full block stays.
    """
    draft = _drafted(view, int(numbers["n"]))
    filled = ~view.masked
    filled[draft] = True
    if filled.all():
        return Choice(draft)
    change = view.confidence - np.nan_to_num(view.before)
    looked_at = filled & ~np.isnan(change)
    return Choice(draft, best(-change, looked_at, _back(draft.size, numbers)))


def edit(view: View, numbers: Numbers) -> Choice:
    """Fills what is above the threshold (at least the best) and corrects what now reads otherwise.

    LLaDA2.1's editing: a standing token whose candidate differs is replaced if the candidate's
    probability is above `edit`.
    """
    sure = view.masked & (view.confidence > numbers["threshold"])
    fill = np.flatnonzero(sure) if sure.any() else best(view.confidence, view.masked, 1)
    changed = ~view.masked & ~view.same & (view.confidence > numbers["edit"])
    return Choice(np.concatenate([fill, np.flatnonzero(changed)]))


@dataclass(frozen=True, slots=True)
class Number:
    """One of a rule's numbers: its default and the range it lies in, both ends included."""

    default: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with what it needs.

    `counts`: it follows the schedule's steps; others end when the block is full. `looks_back`: it
    reads filled positions too and may change them within their block. `forgets`: a token masked
    again leaves the mean of earned confidences. `tracks` names what it compares between steps.
    """

    choose: Callable[[View, Numbers], Choice]
    numbers: Mapping[str, Number] = field(default_factory=dict)
    counts: bool = False
    looks_back: bool = False
    forgets: bool = True
    tracks: str = "held"
    edits: bool = False


SABER = {"n": Number(2, 1, 4096), "divisor": Number(8, 1, 4096)}
RULES: Mapping[str, Rule] = {
    "confidence": Rule(confidence, counts=True),
    "random": Rule(random, counts=True),
    "margin": Rule(margin, counts=True),
    "entropy": Rule(entropy, counts=True),
    "origin": Rule(origin, counts=True),
    "threshold": Rule(threshold, {"threshold": Number(0.9, 0, 1)}),
    "factor": Rule(factor, {"factor": Number(1, 0, 1e6)}),
    "entropy_bound": Rule(entropy_bound, {"gamma": Number(0.15, 0, 1e6)}),
    "saber": Rule(saber, SABER, looks_back=True),
    "saber_code": Rule(
        saber_code, SABER, looks_back=True, forgets=False, tracks="confidence"
    ),
    "edit": Rule(
        edit,
        {"threshold": Number(0.5, 0, 1), "edit": Number(0, 0, 1), "rounds": Number(16, 0, 4096)},
        looks_back=True,
        edits=True,
    ),
}  # fmt: skip


def quotas(masked: int, steps: int, style: str) -> Sequence[int]:
    """How many positions each of a block's steps fills.

    LLaDA: even, the remainder one each to the first steps. Dream: the whole part of what is left
    times 1 - s / t over evenly spaced times from 1 to 0.001, and the rest in the last step.
    """
    if style == "llada":
        return [masked // steps + (i < masked % steps) for i in range(steps)]
    found = []
    for i in range(steps):
        due = masked if i == steps - 1 else int(masked * chance(i, steps))
        found.append(due)
        masked -= due
    return found


LAST = 1e-3
"""The time at which Dream's schedule ends."""


def chance(step: int, steps: int) -> float:
    """The share of what is masked that Dream fills at a step: 1 - s / t; all in the last one."""
    if step == steps - 1:
        return 1.0
    now, then = (1 - (1 - LAST) * i / steps for i in (step, step + 1))
    return 1 - then / now
