"""Figures with intervals: means by bootstrap over question templates, AUROC, majority votes.

Pure numbers: knows nothing of models or tokens.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
ANSWER = re.compile(r"The answer is (-?\d+)\.\s*$")


@dataclass(frozen=True)
class Figure:
    """A mean over `n` questions with its 95% confidence interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def read_answer(text: str) -> str | None:
    """The number in the final answer line; None where there is none."""
    found = ANSWER.search(text.rsplit("</think>", 1)[-1])
    return found[1] if found else None


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer, the earliest at a tie; what can't be read abstains."""
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None


def mean_figure(values: Sequence[float], clusters: Sequence[str], seed: int = 0) -> Figure:
    """Mean with a percentile bootstrap that resamples whole clusters (question templates)."""
    x = np.asarray(values, dtype=float)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=x, minlength=len(names))
    counts = np.bincount(index, minlength=len(names))
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Figure(float(x.mean()), float(low), float(high), len(x))


def auroc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Chance that a right answer scores above a wrong one; ties count half. NaN for one class."""
    x, y = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    right, wrong = int(y.sum()), int((~y).sum())
    if not right or not wrong:
        return float("nan")
    return float((ranks[y].sum() - right * (right + 1) / 2) / (right * wrong))


def auroc_figure(
    scores: Sequence[float], labels: Sequence[bool], clusters: Sequence[str], seed: int = 0
) -> Figure:
    """AUROC with a bootstrap over clusters; `n` counts the scores."""
    x, y = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    members = [np.flatnonzero(index == k) for k in range(len(names))]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(200):
        rows = np.concatenate([members[k] for k in rng.integers(len(names), size=len(names))])
        drawn.append(auroc(x[rows].tolist(), y[rows].tolist()))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Figure(auroc(x.tolist(), y.tolist()), float(low), float(high), len(x))


def best_threshold(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """The score with the best balanced accuracy when everything at or above it is accepted."""
    x, y = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    order = np.argsort(-x)
    right, wrong = np.cumsum(y[order]), np.cumsum(~y[order])
    gain = right / max(1, right[-1]) - wrong / max(1, wrong[-1])
    return float(x[order][int(gain.argmax())])
