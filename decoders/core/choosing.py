"""Draws one of a step's candidates, by this run's own random numbers.

It knows what candidates are and nothing of how they were weighed.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from decoders.core.policies import Candidate, ends
from decoders.core.run import Run
from engines.base import TokenLogprob
from engines.drawing import Draw

NOISE = 1e-5
"""What a score in float32 may owe to its batch companions, with room to spare."""


def foremost(worth: Sequence[float]) -> int:
    """The place of the best; of those within NOISE of it the first, however they were batched."""
    least = max(worth) - NOISE
    return next(at for at, value in enumerate(worth) if value >= least)


class Chooser:
    """Draws under the request's temperature and filters; at temperature 0 the first of the best."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._draw = Draw(run.sampling.but(logit_bias={}, banned=()), run.prompt, ends(run))

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self._run.sampling.temperature == 0

    def drawn(
        self, found: Sequence[Candidate], logits: NDArray[np.float64]
    ) -> tuple[int, Candidate]:
        """(place, candidate) by logits, [candidates]; its log-probability is the draw's own.

        A block keeps the log-probabilities that its tokens were sampled with.
        """
        row = self._draw.filtered(logits)
        place = self._draw.drawn(row).token
        taken = found[place]
        if len(taken.tokens) > 1 or taken.entries is None:
            return place, taken
        order = np.argsort(-row, kind="stable")[: self._run.sampling.logprobs]
        top = tuple((found[i].tokens[0], float(row[i])) for i in order if np.isfinite(row[i]))
        return place, replace(
            taken, entries=(TokenLogprob(taken.tokens[0], float(row[place]), top),)
        )
