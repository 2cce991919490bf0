"""What a monitor is: it reads a conversation and the steps so far and says how good they are.

A monitor never writes a token and never sees a run or a request. Whoever asks counts the calls.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from engines.base import BoundaryError
from engines.tokenizer import Message as Message


class MonitorError(BoundaryError):
    """A monitor could not answer: it erred, timed out or its circuit is open."""


class UnreadableError(MonitorError):
    """This text cannot be judged (too long, no place for it in the template); others can.

    It is the text's fault, so it says nothing about the monitor's health.
    """


class Stage(StrEnum):
    """What the last step belongs to."""

    THINKING = "thinking"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Score:
    """A verdict. `value` is what thresholds compare, in the monitor's unit; `raw` before scaling.

    `tokens` is how many tokens the monitor's own model read and wrote for it. `steps` are the
    scores of single steps, where the monitor has them.
    """

    value: float
    raw: float
    label: str | None = None
    tokens: int = 0
    steps: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Calibration:
    """The spread of a monitor's raw score on a stored set, and a threshold that fits it."""

    unit: str
    mean: float
    std: float
    threshold: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None


class Monitor(ABC):
    """Scores text. Stateless between calls; a score never depends on its batch companions.

    `judges` says what it is a judge of: how good an answer is, or how safe a text is; neither for
    exact checks. No value lies below `floor`, none above `ceiling`; None is no limit. `configured`
    is a threshold that beats the calibration's.
    """

    name: str
    kind: str
    unit: str
    judges: Literal["answer", "safety"] | None = None
    floor: float = -100.0
    ceiling: float | None = None
    calibration: Calibration | None = None
    configured: float | None = None
    warnings: Sequence[str] = ()

    @property
    def threshold(self) -> float:
        """A score with a value below it is a violation."""
        if self.configured is not None:
            return self.configured
        stored = self.calibration.threshold if self.calibration is not None else None
        return 0.0 if stored is None else stored

    async def start(self) -> None:  # noqa: B027  (nothing to load is a common case)
        """Loads what it needs; returns when it can answer."""

    async def stop(self) -> None:  # noqa: B027
        """Frees everything."""

    async def check(self) -> None:  # noqa: B027
        """Returns if it can answer, else raises `MonitorError` with the reason."""

    @abstractmethod
    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        """Scores `conversation` (chat messages) continued by the assistant's `steps`, in order.

        Steps carry their own white space. With stage ANSWER the last step is the answer and those
        before it the thinking; without any step the conversation alone is judged.
        Raises `MonitorError` if it cannot answer.
        """
