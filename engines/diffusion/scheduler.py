"""Continuous batching at step level: paths of any kind share forward passes.

A path joins when there is room and leaves at any step; nothing it says depends on who else is
there. It knows no asyncio and no request: whoever drives it calls `joined` and then `step`.
"""

from collections import deque
from collections.abc import Sequence

from engines.base import Delta
from engines.diffusion.guesses import guess
from engines.diffusion.model import Denoiser
from engines.diffusion.path import Path


class Scheduler:
    """The paths that wait and those under way; at most so many rows and tokens at once."""

    def __init__(self, model: Denoiser, rows: int, tokens: int) -> None:
        self._model, self._rows, self._tokens = model, rows, tokens
        self._waiting: deque[Path] = deque()
        self._active: list[Path] = []
        self.passes = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._active)

    @property
    def waiting(self) -> int:
        """How many paths have found no room yet."""
        return len(self._waiting)

    def add(self, path: Path) -> None:
        """A new path; it joins at the next step that has room, in the order of coming."""
        self._waiting.append(path)

    def drop(self, path: Path) -> None:
        """Takes a path out, wherever it is; its rows are free at the next step."""
        for where in (self._active, self._waiting):
            if path in where:
                where.remove(path)

    def joined(self) -> list[Path]:
        """The paths of the next step: those under way, and waiting ones while there is room."""
        taken = sum(path.tokens for path in self._active)
        while self._waiting and len(self._active) < self._rows:
            taken += self._waiting[0].tokens
            if self._active and taken > self._tokens:
                break
            self._active.append(self._waiting.popleft())
        return list(self._active)

    def step(self, paths: Sequence[Path]) -> list[tuple[Path, Delta]]:
        """One forward pass over `paths`; what has come to stand in each."""
        tracks = [path.wanted() for path in paths]
        segments = [segment for track in tracks for segment in track]
        rows = self._model(segments).split([len(segment.wanted) for segment in segments])
        self.passes += 1
        parts = iter(rows)
        logits = [
            path.mixed([next(parts) for _ in own]) for path, own in zip(paths, tracks, strict=True)
        ]
        drawings = [path.drawing() for path in paths]
        found = guess(logits, drawings, self._model.shape.mask_id)
        for path, guesses in zip(paths, found, strict=True):
            path.take(guesses)
        deltas = [(path, path.delta()) for path in paths]
        return [(path, delta) for path, delta in deltas if delta is not None]
