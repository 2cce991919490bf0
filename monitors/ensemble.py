"""Several monitors as one, asked side by side and taken conservatively.

The worst member's score is harder to over-optimise than any single one's, and so is the mean less
their disagreement: Coste et al., Reward Model Ensembles Help Mitigate Overoptimization, arXiv
2310.02743. Members are configured monitors of their own; it does not know their kinds.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pvariance
from typing import Literal, Self

from pydantic import Field, model_validator

from monitors.core.base import (
    Calibration,
    Message,
    Monitor,
    MonitorError,
    Score,
    Stage,
    UnreadableError,
)
from monitors.core.registry import Parts
from monitors.core.spec import MonitorSpec


class Spec(MonitorSpec):
    """`{kind: ensemble, members: [NAMES]}`.

    `minimum` is the worst member's value, `mean` their mean less `penalty` times their variance,
    `majority` the members at or above their own thresholds less those below, as a share of all.
    Without a threshold of its own it takes the one that all members have.
    """

    kind: Literal["ensemble"]
    timeout_s: float = Field(
        30.0, gt=0, description="longest wait for all members, which have time-outs of their own"
    )
    members: tuple[str, ...] = Field(min_length=2, description="names of other monitors")
    aggregate: Literal["minimum", "mean", "majority"] = Field(
        "minimum", description="what the members' values come to"
    )
    penalty: float = Field(1.0, ge=0, description="`mean`: weight of the members' variance")
    standardise: bool = Field(
        False,
        description="values as standard deviations from the mean of each member's calibration; "
        "needed where units differ",
    )
    quorum: int | None = Field(
        None, ge=1, description="members that must answer; null: all of them"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.members)) < len(self.members):
            raise ValueError("members: one is named twice")
        if self.quorum is not None and self.quorum > len(self.members):
            raise ValueError(f"quorum: there are {len(self.members)} members")
        return self


@dataclass(frozen=True)
class Voice:
    """One member's score, and its value in the ensemble's unit."""

    member: Monitor
    score: Score
    value: float


class Ensemble(Monitor):
    """Its members' verdicts taken together; one that fails fails the ensemble, but for a quorum."""

    kind = "ensemble"

    def __init__(self, name: str, spec: Spec, members: Sequence[Monitor]) -> None:
        """Raises ValueError for members that cannot be taken together."""
        self.name = name
        self._spec, self._members = spec, members
        self._needed = spec.quorum or len(members)
        self.unit = self._common_unit()
        self.calibration = self._derived()
        judged = {member.judges for member in members}
        self.judges = judged.pop() if len(judged) == 1 else None
        if spec.aggregate == "majority":
            self.floor, self.ceiling = -1.0, 1.0
        elif not spec.standardise and spec.aggregate == "minimum":
            self.floor = min(member.floor for member in members)
            ceilings = [one.ceiling for one in members if one.ceiling is not None]
            self.ceiling = min(ceilings) if ceilings else None

    async def start(self) -> None:
        """Its members are started before it; what they learned then is taken over."""
        self.unit = self._common_unit()
        self.calibration = self._derived()

    async def check(self) -> None:
        """Raises MonitorError unless as many members as are needed can answer."""
        states = await asyncio.gather(*(m.check() for m in self._members), return_exceptions=True)
        faults = [str(state) for state in states if isinstance(state, Exception)]
        self._enough(len(states) - len(faults), faults)

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        """The aggregate, with the worst member's label; `tokens` is what all of them read."""
        voices = await self._voices(conversation, steps, stage)
        worst = min(voices, key=self._margin)
        value, raw = self._aggregate(voices), worst.score.raw
        tokens = sum(voice.score.tokens for voice in voices)
        return Score(value, raw, self._label(worst.score.label, len(voices)), tokens)

    async def _voices(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> list[Voice]:
        """Those who answered. Raises MonitorError if they are too few."""

        async def ask(member: Monitor) -> Voice | MonitorError:
            try:
                score = await member.score(conversation, steps, stage)
            except MonitorError as fault:
                return fault
            return Voice(member, score, self._scaled(member, score.value))

        async with asyncio.TaskGroup() as group:  # cancelled with the caller, all of them
            asked = [group.create_task(ask(member)) for member in self._members]
        answers = [task.result() for task in asked]
        voices = [answer for answer in answers if isinstance(answer, Voice)]
        faults = [answer for answer in answers if isinstance(answer, MonitorError)]
        if len(voices) < self._needed and all(isinstance(f, UnreadableError) for f in faults):
            raise UnreadableError("; ".join(map(str, faults)))
        self._enough(len(voices), list(map(str, faults)))
        return voices

    def _enough(self, answered: int, faults: Sequence[str]) -> None:
        if answered < self._needed:
            few = f"{answered} of {len(self._members)} members can answer, {self._needed} must"
            raise MonitorError(f"monitor {self.name!r}: {few}: {'; '.join(faults)}")

    def _aggregate(self, voices: Sequence[Voice]) -> float:
        values = [voice.value for voice in voices]
        match self._spec.aggregate:
            case "minimum":
                return min(values)
            case "mean":
                return fmean(values) - self._spec.penalty * pvariance(values)
            case "majority":
                return fmean(-1.0 if self._margin(voice) < 0 else 1.0 for voice in voices)

    def _margin(self, voice: Voice) -> float:
        """How far a member is above what makes it worse than the others."""
        if self._spec.aggregate == "majority":
            return voice.score.value - voice.member.threshold
        return voice.value

    def _label(self, label: str | None, answered: int) -> str | None:
        if answered == len(self._members):
            return label
        return f"{label or 'no label'} ({answered} of {len(self._members)} answered)"

    def _scaled(self, member: Monitor, value: float) -> float:
        if not self._spec.standardise:
            return value
        known = member.calibration
        assert known is not None
        return (value - known.mean) / known.std

    def _common_unit(self) -> str:
        """The unit of the value. Raises ValueError where the members have none in common."""
        if self._spec.aggregate == "majority":
            return "majority"
        if self._spec.standardise:
            lacking = [m.name for m in self._members if not (m.calibration and m.calibration.std)]
            if lacking:
                raise ValueError(f"standardise: {', '.join(lacking)}: has no calibration")
            return "deviations"
        units = {member.unit: member.name for member in self._members}
        if len(units) > 1:
            told = ", ".join(f"{name} in {unit}" for unit, name in units.items())
            raise ValueError(f"standardise: must be true, since the units differ: {told}")
        return next(iter(units))

    def _derived(self) -> Calibration:
        """The members' own, with the threshold that they share; votes just above a tie."""
        if self._spec.aggregate == "majority":
            tie = 0.5 / len(self._members)
            return Calibration(self.unit, 0.0, 1.0, threshold=tie, low=-1.0, high=1.0)
        shared = {self._scaled(member, member.threshold) for member in self._members}
        threshold = shared.pop() if len(shared) == 1 else None
        known = [member.calibration for member in self._members if member.calibration]
        if self._spec.standardise or len(known) < len(self._members):
            return Calibration(self.unit, 0.0, 1.0, threshold)
        mean, std = fmean(one.mean for one in known), max(one.std for one in known)
        return Calibration(self.unit, mean, std, threshold)


def make(name: str, spec: Spec, parts: Parts) -> Ensemble:
    """The configured ensemble of monitors that were built before."""
    if missing := [member for member in spec.members if member not in parts.monitors]:
        raise ValueError(f"members: there is no monitor {missing[0]!r}")
    return Ensemble(name, spec, [parts.monitors[member] for member in spec.members])
