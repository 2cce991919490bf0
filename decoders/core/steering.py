"""Tries at a step behind forced phrases, and the account of a run whose steps are judged.

The first safe try in order stands, however the tries raced. It does not know what is unsafe, nor
what happens when no try is safe.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decoders.core.base import Commit
from decoders.core.run import INTERVENTION, Refused, Run
from decoders.core.steps import Step
from decoders.core.trail import Trail
from decoders.core.watch import Attempt, Watch
from monitors.core.base import Score

Figures = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Phrase:
    """Forced words as tokens and text; `kept` ones stay in the answer and are judged with it."""

    tokens: tuple[int, ...]
    text: str
    kept: bool


@dataclass(slots=True)
class Account:
    """What was judged, redone and let through, for the summary and the trace."""

    run: Run
    threshold: float
    steered: int = 0
    resamples: int = 0
    lowest: float | None = None
    _widths: int = 0
    _accepted: int = 0

    def unsafe(self, trail: Trail, step: Step, score: Score | None) -> None:
        """A step is thrown away; without a score of its own because the one before was unsafe."""
        self._judged(score)
        self._tell("rejected", trail, step, score, self._figures(trail.index))

    def tried(self, trail: Trail, attempt: int, found: Attempt, safe: bool) -> None:
        """An attempt at the step after `trail` was judged."""
        self.resamples += 1
        self._judged(found.score)
        if found.failed is not None:
            self.run.tally.degrade(found.failed)
        self.run.note(
            "resample", tokens=found.step.tokens, summary=self._figures(trail.index),
            step=trail.index + 1, attempt=attempt, safe=safe, **_verdict(found.score),
        )  # fmt: skip

    def steer(self, trail: Trail, phrase: Phrase) -> Commit | None:
        """The phrase is forced; a commit if it is kept."""
        count = len(phrase.tokens) * phrase.kept
        self.run.note(INTERVENTION, tokens=phrase.tokens, count=count)
        if not phrase.kept:
            return None
        trail.force(phrase.tokens, phrase.text)
        asked = self.run.sampling.logprobs is not None
        return Commit(phrase.tokens, True, [None] * count if asked else None)

    def accept(self, trail: Trail, step: Step, score: Score | None) -> Commit:
        """The step stands."""
        self._judged(score)
        self._widths += len(step.tokens)
        self._accepted += 1
        self.run.tally.held_back = max(self.run.tally.held_back, len(step.tokens))
        if not step.blank:
            self._tell("step", trail, step, score, self._figures(trail.index + 1))
        trail.add(step, None if score is None else score.value)
        asked = self.run.sampling.logprobs is not None
        return Commit(step.tokens, False, (step.logprobs or ()) if asked else None, step.finish)

    def _judged(self, score: Score | None) -> None:
        if score is not None:
            self.lowest = score.value if self.lowest is None else min(score.value, self.lowest)

    def _tell(
        self, kind: str, trail: Trail, step: Step, score: Score | None, figures: Figures
    ) -> None:
        start, end = trail.span(step)
        self.run.note(
            kind, tokens=step.tokens, summary=figures, index=trail.index + 1,
            stage=step.stage.value, start=start, end=end, length=len(step.tokens),
            **_verdict(score),
        )  # fmt: skip

    def _figures(self, standing: int) -> Figures:
        return {
            "threshold": self.threshold,
            "steps": standing,
            "steered_steps": self.steered,
            "resamples": self.resamples,
            "lowest_score": self.lowest,
            "mean_held_back": round(self._widths / max(1, self._accepted), 3),
        }


def _verdict(score: Score | None) -> dict[str, Any]:
    """The score and what it cost, in tokens that the monitor's own model read and wrote."""
    if score is None:
        return {"score": None, "monitor_tokens": 0}
    return {"score": score.value, "monitor_tokens": score.tokens}


async def tries(
    watch: Watch, trail: Trail, phrases: Sequence[Phrase], account: Account
) -> list[Attempt]:
    """Attempts at the step after `trail`, one behind each phrase, up to the first safe one.

    Side by side where the watch runs ahead and nothing counts its branches and calls, else one
    after the other. What was sampled beyond the first safe attempt is thrown away, and so is what
    failed there. It ends where an attempt has no verdict for want of calls.
    """
    account.steered += 1
    count = len(phrases)
    abreast = watch.optimistic and not watch.limited and count > 1
    runs = watch.run.fork(count, shared=True) if abreast else [watch.run] * count
    sources = [_one(watch, run, trail, b, phrases[b]) for b, run in enumerate(runs)]
    found: dict[int, Attempt | Refused] = {}
    last: int | None = None
    for wave in [sources] if abreast else [[source] for source in sources]:
        first = len(found)
        async with watch.run.together(wave) as moments:
            async for offset, attempt in moments:
                if attempt is not None:
                    found[first + offset] = attempt
                last = _last(found, account.threshold)
                if last is not None:
                    break
        if last is not None:
            break
    return _told(trail, found, count - 1 if last is None else last, account)


async def _one(
    watch: Watch, run: Run, trail: Trail, number: int, phrase: Phrase
) -> AsyncGenerator[Attempt | Refused, None]:
    """Attempt `number`: sampled behind the phrase, judged after what will stand before it.

    A refusal is given, not raised: it counts only if no attempt before it is safe.
    """
    standing = trail.ahead()
    if phrase.kept:
        standing.force(phrase.tokens, phrase.text)
    after = [*trail.tokens, *phrase.tokens]
    try:
        yield await watch.attempt(run, standing, after, ("steer", len(trail.tokens), number))
    except Refused as refused:
        yield refused


def safe(attempt: Attempt, threshold: float) -> bool:
    """Whether an attempt may stand: judged safe, or its monitor may fail and did."""
    return not attempt.spent and (attempt.value is None or attempt.value >= threshold)


def _last(found: Mapping[int, Attempt | Refused], threshold: float) -> int | None:
    """The attempt behind which none matters, once all before it have been judged.

    The first safe one, or one that nobody will judge, as no later one will be either.
    """
    for number in range(len(found)):
        one = found.get(number)
        if one is None:
            return None
        if isinstance(one, Refused) or one.spent or safe(one, threshold):
            return number
    return None


def _told(
    trail: Trail, found: Mapping[int, Attempt | Refused], last: int, account: Account
) -> list[Attempt]:
    """The attempts up to the last one that matters, noted; raises a refusal among them."""
    attempts = []
    for number in range(last + 1):
        one = found[number]
        if isinstance(one, Refused):
            raise one
        account.tried(trail, number, one, safe(one, account.threshold))
        attempts.append(one)
    return attempts
