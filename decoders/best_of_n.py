"""Best of n: sample several whole answers, return the one a monitor likes best.

Source: arXiv 2112.09332, as one of many; the reference point of every reward-guided method. It
over-optimises its monitor as n grows; an ensemble of monitors helps.
"""

from collections.abc import AsyncGenerator, Sequence

from pydantic import Field as Param

from decoders.core.base import (
    Commit,
    DecodeRequest,
    Estimate,
    Field,
    Null,
    Options,
    decoder,
)
from decoders.core.judges import Judge, judged
from decoders.core.paths import Path, share_of, think_then_answer, until_stop
from decoders.core.run import Run
from decoders.core.utility import reward

MONITOR = "decoding.params.monitor"
NOISE = 1e-5
"""What a score in float32 may owe to its batch companions, with room to spare."""


class BestOfNOptions(Options):
    """How many answers, and who judges them."""

    samples: int = Param(4, ge=1, le=256, description="answers sampled")
    monitor: Judge = Param(
        None,
        description="a configured monitor's name, or an inline check (exact, regex, json_schema); "
        "null = the first that judges answers, else the first configured",
    )
    thinking_budget: int | None = Param(
        None, ge=1, description="thinking tokens over all samples, an even part each"
    )


def estimate(options: BestOfNOptions, request: DecodeRequest) -> Estimate:
    """All samples to their caps, each scored once."""
    n = options.samples
    return Estimate(n, n * request.max_tokens, n, n if n > 1 else 0)


def check(options: BestOfNOptions, request: DecodeRequest) -> None:
    """The monitor exists and the budget goes round."""
    share_of(options.thinking_budget, options.samples, "thinking_budget")
    if options.samples > 1:
        reward(request, options.monitor, MONITOR)


@decoder(
    "best_of_n",
    BestOfNOptions,
    source="arXiv 2112.09332",
    honours={
        Field.LOGPROBS, Field.N, Field.PENALTIES, Field.LOGIT_BIAS, Field.MIN_TOKENS,
        Field.STRUCTURED,
    },
    estimate=estimate,
    null=Null({"samples": 1}),
    check=check,
)  # fmt: skip
async def best_of_n(run: Run, options: BestOfNOptions) -> AsyncGenerator[Commit, None]:
    """Several whole answers; the one that the monitor scores highest is returned."""
    cap = share_of(options.thinking_budget, options.samples, "thinking_budget")
    if options.samples == 1:
        async for commit in think_then_answer(run, cap):
            yield commit
        return
    monitor = reward(run.request, options.monitor, MONITOR)
    samples = run.fork(options.samples)
    found = [Path() for _ in samples]
    run.note("started", samples=len(samples))
    paths = [until_stop(sample, think_then_answer(sample, cap)) for sample in samples]
    pairs = zip(samples, paths, strict=True)
    sources = [judged(sample, monitor, path) for sample, path in pairs]
    async with run.together(sources) as moments:
        async for index, moment in moments:
            if moment is not None:
                found[index].add(moment)
            else:
                _tell(run, index, found[index])
    best = pick(found)
    scores = [path.score for path in found]
    run.tally.held_back = found[best].length
    run.note("picked", summary={"sample": best, "scores": scores}, sample=best)
    for commit in found[best].whole():
        yield commit


def _tell(run: Run, index: int, path: Path) -> None:
    run.note("sample", tokens=path.tokens, sample=index, length=path.length, score=path.score)


def pick(found: Sequence[Path]) -> int:
    """The best score wins; ties go to a finished sample, then to the smallest index.

    Scores closer than NOISE are a tie: two samples with one text, scored in different batches,
    differ by a rounding, and which is ahead would depend on timing.
    """
    scores = [float("-inf") if path.score is None else path.score for path in found]
    near = [i for i, score in enumerate(scores) if score >= max(scores) - NOISE]
    return min(near, key=lambda i: (not found[i].finished, i))
