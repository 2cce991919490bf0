"""Guards with known verdicts: by the words in what they read, after a given delay, with faults."""

import asyncio
from collections.abc import Sequence
from typing import Literal

from monitors.core.base import Message, Monitor, MonitorError, Score, Stage


class WordGuard(Monitor):
    """-1 for a text whose last step holds a bad word, else 1; keeps what it was asked.

    `delay` is seconds a call (None: it never answers), `fails` the numbers of calls that fail.
    """

    kind = "rules"
    unit = "rule"
    judges: Literal["answer", "safety"] | None = "safety"

    def __init__(
        self, *bad: str, delay: float | None = 0.0, fails: Sequence[int] = (), name: str = "guard"
    ) -> None:
        self.name, self.bad, self.delay, self.fails = name, bad, delay, fails
        self.seen: list[tuple[list[str], Stage]] = []
        self.running = 0

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        """The verdict on the last step."""
        self.seen.append((list(steps), stage))
        if len(self.seen) - 1 in self.fails:
            raise MonitorError("down")
        self.running += 1
        try:
            await asyncio.sleep(3600 if self.delay is None else self.delay)
        finally:
            self.running -= 1
        value = -1.0 if any(word in steps[-1] for word in self.bad) else 1.0
        return Score(value, value, "unsafe" if value < 0 else "safe", tokens=len("".join(steps)))
