"""A monitor that does what a test tells it."""

import asyncio
from collections.abc import Sequence
from typing import Literal

from monitors.core.base import Message, Monitor, Score, Stage


class Told(Monitor):
    """Gives `value`, or raises `fault`, or never ends; counts its calls."""

    kind = "told"
    unit = "margin"

    def __init__(
        self, value: float = 0.5, judges: Literal["answer", "safety"] | None = None
    ) -> None:
        self.name = "told"
        self.value = value
        self.judges = judges
        self.fault: BaseException | None = None
        self.stuck = False
        self.read: list[tuple[str, ...]] = []

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        self.read.append(tuple(steps))
        if self.stuck:
            await asyncio.Event().wait()
        if self.fault is not None:
            raise self.fault
        return Score(self.value, self.value, tokens=3)
