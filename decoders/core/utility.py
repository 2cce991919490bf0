"""What candidates are worth: rewards of where they lead, or of what stands with them.

`rollout` looks ahead with the proposing policy and scores the text it comes to, averaged over
samples (arXiv 2405.20495); `prefix_reward` scores the unfinished text itself (arXiv 2402.01694).
Equal candidates are scored once. All is asked of the run, which books and limits it; what was
spent is counted here besides. It knows no strategy.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any, Literal

from decoders.core.base import DecodeRequest, RequestError, TraceLevel
from decoders.core.foreign import peer, spoken
from decoders.core.judges import Judge, judge
from decoders.core.policies import Candidate, abreast, voiced
from decoders.core.run import Run
from engines.base import Finish
from monitors.core.base import Monitor, Score, Stage

Mode = Literal["rollout", "prefix_reward"]
Scores = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Worth:
    """A candidate's utility by each reward, and the standard error of each estimate."""

    means: Scores
    errors: Scores


def reward(request: DecodeRequest, choice: Judge, where: str) -> Monitor:
    """The monitor that `choice` means; None is the first that judges answers, else the first.

    Raises `RequestError` with the param `where` if there is none.
    """
    if choice is None:
        judges = (name for name, m in request.monitors.items() if m.judges == "answer")
        choice = next(judges, None)
    return judge(request, choice, where)


def check_calibrated(monitor: Monitor, where: str) -> None:
    """Scores can be told in standard deviations; else `RequestError` with the param `where`."""
    if monitor.calibration is None or not monitor.calibration.std > 0:
        raise RequestError(f"{where}: monitor {monitor.name!r} has no calibration", where)


class QEstimator:
    """Estimates utilities for one run. Scores are in their monitors' units, else calibrated:
    standard deviations from the mean of the stored set.
    """

    def __init__(
        self, run: Run, rewards: Sequence[Monitor], mode: Mode,
        *, lookahead: int = 20, samples: int = 1, calibrated: bool = False,
    ) -> None:  # fmt: skip
        """`lookahead` tokens of `samples` continuations; greedy ones are all alike."""
        self._run, self._rewards, self._mode = run, rewards, mode
        self._lookahead, self._calibrated = lookahead, calibrated
        alike = mode == "prefix_reward" or run.sampling.temperature == 0
        self._samples = 1 if alike else samples
        self.spent = {"rollouts": 0, "rollout_tokens": 0, "scored": 0}

    async def worth(
        self, done: Sequence[int], candidates: Sequence[Candidate]
    ) -> list[Worth] | None:
        """The utility of each candidate after the tokens `done`.

        None where a monitor that may fail has failed: then nothing can be compared. Raises
        `MonitorCallsSpent` where the budget leaves one unjudged.
        """
        keys = [self._key(candidate) for candidate in candidates]
        distinct = dict(zip(keys, candidates, strict=True))
        sources = [
            self._sample(done, candidate, number)
            for candidate in distinct.values()
            for number in range(self._samples)
        ]
        found = await abreast(self._run, sources, sampling=self._mode == "rollout")
        if any(scores is None for scores in found) or len(found) < len(sources):
            return None
        told = [scores for scores in found if scores is not None]
        parts = [told[at : at + self._samples] for at in range(0, len(told), self._samples)]
        values = {key: summed(part) for key, part in zip(distinct, parts, strict=True)}
        return [values[key] for key in keys]

    def _key(self, candidate: Candidate) -> tuple[object, ...]:
        """Candidates with the same key are worth the same."""
        agent = candidate.agent if self._mode == "rollout" else None
        return agent, candidate.tokens

    async def _sample(
        self, done: Sequence[int], candidate: Candidate, number: int
    ) -> AsyncGenerator[Scores | None, None]:
        tokens = [*done, *candidate.tokens]
        if self._mode == "rollout" and candidate.finish is not Finish.STOP:
            tokens += await self._ahead(tokens, len(done), candidate, number)
        yield await self.score(tokens)

    async def _ahead(
        self, tokens: Sequence[int], at: int, candidate: Candidate, number: int
    ) -> list[int]:
        """What the proposing policy says next, as far as the answer may go or to a stop string."""
        said: list[int] = []
        purpose: tuple[int | str, ...] = ("rollout", at, candidate.agent or "")
        purpose = (*purpose, *candidate.tokens, number)
        if candidate.agent in self._run.request.peers:
            room = min(self._lookahead, self._run.max_tokens - len(tokens))
            other = peer(self._run, candidate.agent)
            found = await spoken(self._run, other, tokens, room, purpose, block=False)
            self._count(found.sampled)
            return list(found.tokens)
        async for delta in voiced(
            self._run, candidate.agent, tokens,
            limit=self._lookahead, purpose=purpose, logprobs=None,
        ):  # fmt: skip
            said += delta.tokens
        self._count(len(said))
        return said

    def _count(self, sampled: int) -> None:
        self.spent["rollouts"] += bool(sampled)
        self.spent["rollout_tokens"] += sampled

    async def score(self, tokens: Sequence[int]) -> Scores | None:
        """Every reward's score of an answer that begins with `tokens`; None if one has failed."""
        steps, stage = texts(self._run, tokens)
        scores = []
        for monitor in self._rewards:
            verdict = await self._run.score(monitor, steps, stage)
            if verdict is None:
                return None
            self.spent["scored"] += 1
            scores.append(self._scaled(monitor, verdict))
        return tuple(scores)

    def _scaled(self, monitor: Monitor, verdict: Score) -> float:
        known = monitor.calibration
        if not self._calibrated or known is None:
            return verdict.value
        return (verdict.raw - known.mean) / known.std


def texts(run: Run, tokens: Sequence[int]) -> tuple[list[str], Stage]:
    """An unfinished answer as monitors read it: its thinking, if any, and its content."""
    reading = run.read(tokens)
    if not reading.reasoning:
        return [reading.content], Stage.ANSWER
    if not reading.content:
        return [reading.reasoning], Stage.THINKING
    return [reading.reasoning, reading.content], Stage.ANSWER


def listed(run: Run, found: Sequence[Candidate], values: Sequence[Worth] | None) -> dict[str, Any]:
    """For a note at level `full`: what each candidate says, and its scores if any were asked."""
    if run.request.trace is not TraceLevel.FULL:
        return {}
    scores = [None] * len(found) if values is None else [list(one.means) for one in values]
    told = [
        {"agent": one.agent, "tokens": list(one.tokens), "kl": one.kl, "scores": own}
        for one, own in zip(found, scores, strict=True)
    ]
    return {"proposed": told}


def summed(samples: Sequence[Scores]) -> Worth:
    """Means over samples, and their standard errors (0 of a single one)."""
    columns = list(zip(*samples, strict=True))
    root = sqrt(len(samples))
    errors = (stdev(column) / root if len(column) > 1 else 0.0 for column in columns)
    return Worth(tuple(map(fmean, columns)), tuple(errors))
