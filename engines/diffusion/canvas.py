"""The canvas: positions behind a prompt, masked or filled. It knows no model and no schedule."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

MASKED = -1


class Canvas:
    """`length` positions of which the first `limit` may be filled; the mask token never is.

    Positions count from the canvas's own start. `earned` are the confidences with which tokens
    were committed (NaN: none).
    """

    def __init__(self, length: int, limit: int) -> None:
        self.tokens: NDArray[np.int64] = np.full(length, MASKED, np.int64)
        self.earned: NDArray[np.float64] = np.full(length, np.nan)
        self.limit = min(length, limit)

    def masked(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Which positions from `start` to `stop` are still to be filled."""
        places = np.arange(start, stop)
        return np.asarray((self.tokens[start:stop] == MASKED) & (places < self.limit), np.bool_)

    def fill(
        self, positions: NDArray[np.int64], tokens: NDArray[np.int64], sure: NDArray[np.float64]
    ) -> None:
        """Commits tokens with their confidences."""
        self.tokens[positions] = tokens
        self.earned[positions] = sure

    def remask(self, positions: NDArray[np.int64], *, forget: bool) -> None:
        """Masks filled positions again; `forget` takes their confidence back too."""
        self.tokens[positions] = MASKED
        if forget:
            self.earned[positions] = np.nan

    def prefix(self) -> int:
        """How many positions are filled from the start without a gap."""
        masked = self.tokens[: self.limit] == MASKED
        return int(masked.argmax()) if masked.any() else self.limit

    def filled(self) -> int:
        """How many positions are filled."""
        return int((self.tokens != MASKED).sum())

    def end(self, ends: Collection[int], within: int) -> int | None:
        """The position of the first end token among the first `within`."""
        if not ends:
            return None
        found = np.isin(self.tokens[:within], list(ends))
        return int(found.argmax()) if found.any() else None

    def read(self, start: int, stop: int) -> Sequence[int]:
        """The tokens from `start` to `stop`."""
        return [int(token) for token in self.tokens[start:stop]]
