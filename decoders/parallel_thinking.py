"""Parallel thinking: the thinking budget split over independent paths, and a majority vote.

Source: arXiv 2506.04210. Beyond the paper: answers are put into canonical form before the vote, a
vote that no outstanding path can change ends at once (the exact test stands in
`decoders.core.voting`), ties and the returned text never depend on timing.
"""

from collections.abc import AsyncGenerator, Hashable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic import Field as Param

from decoders.core.answers import Canonical, canonical
from decoders.core.answers.reading import AnswerKind
from decoders.core.base import (
    Commit,
    Decoder,
    DecodeRequest,
    Estimate,
    Field,
    Null,
    Options,
    RequestError,
    decoder,
)
from decoders.core.judges import Judge, judge, judged, weight
from decoders.core.paths import Path, share_of, think_then_answer, until_stop
from decoders.core.registry import find
from decoders.core.run import Run, checked
from decoders.core.voting import Ballot, Vote
from monitors.core.base import Monitor

PARAMS = "decoding.params"
STRATEGY = f"{PARAMS}.path.strategy"


class PathSpec(BaseModel):
    """The strategy that decodes each path."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    strategy: str
    params: dict[str, Any] = Param(default_factory=dict)


class ParallelThinkingOptions(Options):
    """How many paths, what they may spend, when the vote ends."""

    paths: int = Param(8, ge=1, le=256, description="independent paths")
    thinking_budget: int | None = Param(
        None, ge=1, description="thinking tokens over all paths, an even part each; then a path "
        "is made to close its thinking and answer"
    )  # fmt: skip
    answer: AnswerKind = Param("auto", description="what form an answer has; others abstain")
    early_stop: bool = Param(
        True, description="end as soon as no outstanding path can change the winner"
    )
    stop_confidence: float | None = Param(
        None, gt=0.5, lt=1, description="also end once the leader is the true majority with this "
        "probability (arXiv 2305.11860); may change the answer"
    )  # fmt: skip
    weights: Judge = Param(
        None, description="a monitor whose score, in [0, 1], weighs each vote; null = all equal"
    )
    path: PathSpec | None = Param(
        None, description="another strategy to decode each path; null = plain sampling"
    )


def check(options: ParallelThinkingOptions, request: DecodeRequest) -> None:
    """The budget goes round, the monitor exists, the paths' strategy has these parameters."""
    share_of(options.thinking_budget, options.paths, "thinking_budget")
    if options.weights is not None:
        judge(request, options.weights, f"{PARAMS}.weights")
    if options.path is not None:
        inner = inner_strategy(options)
        lacking = sorted(inner.requires - request.engine.capabilities)
        if lacking:
            message = f"{STRATEGY}: the engine lacks {', '.join(lacking)}"
            raise RequestError(message, STRATEGY, "strategy_unsupported")
        params = checked(inner.options, inner_params(options), f"{PARAMS}.path.params")
        if inner.check is not None:
            inner.check(params, request)


def estimate(options: ParallelThinkingOptions, request: DecodeRequest) -> Estimate:
    """Every path to its cap; what early stopping saves is not counted on."""
    n, calls = options.paths, options.paths if options.weights is not None else 0
    if options.path is None:
        return Estimate(n, n * request.max_tokens, n, calls)
    inner = inner_strategy(options)
    params = checked(inner.options, inner_params(options), f"{PARAMS}.path.params")
    one = inner.estimate(params, request)
    return Estimate(
        n * one.rows,
        n * one.generated_tokens,
        n * one.engine_requests,
        n * one.monitor_calls + calls,
    )


def inner_strategy(options: ParallelThinkingOptions) -> Decoder:
    """The strategy that decodes each path."""
    assert options.path is not None
    return find(options.path.strategy, STRATEGY)


def inner_params(options: ParallelThinkingOptions) -> Mapping[str, Any]:
    """The paths' strategy's parameters, with its part of the thinking budget."""
    assert options.path is not None
    cap = share_of(options.thinking_budget, options.paths, "thinking_budget")
    if cap is None:
        return options.path.params
    if "thinking_budget" not in inner_strategy(options).options.model_fields:
        where = f"{PARAMS}.thinking_budget"
        raise RequestError(f"{where}: {options.path.strategy} has no thinking budget", where)
    return {**options.path.params, "thinking_budget": cap}


@decoder(
    "parallel_thinking",
    ParallelThinkingOptions,
    source="arXiv 2506.04210",
    honours={Field.LOGPROBS, Field.N, Field.LOGIT_BIAS},
    estimate=estimate,
    null=Null({"paths": 1}),
    check=check,
)
async def parallel_thinking(
    run: Run, options: ParallelThinkingOptions
) -> AsyncGenerator[Commit, None]:
    """Independent paths share the thinking budget; the majority's answer is returned."""
    if options.paths == 1:
        async for commit in one_path(run, options):
            yield commit
        return
    runs = run.fork(options.paths)
    found = [Path() for _ in runs]
    vote = Vote(
        len(runs),
        early=options.early_stop,
        confidence=options.stop_confidence,
        seed=run.request.seed or 0,
    )
    run.note("started", paths=len(runs))
    monitor = _weigher(run, options)
    sources = [weighed(path, options, monitor) for path in runs]
    async with run.together(sources) as moments:
        async for index, moment in moments:
            if moment is not None:
                found[index].add(moment)
                vote.progress(index, found[index].length)
            else:
                vote.finish(ballot(run, options, monitor, index, found[index]))
            if vote.over:
                break
    vote.close()
    for commit in _returned(run, options, vote, found):
        yield commit


def one_path(run: Run, options: ParallelThinkingOptions) -> AsyncGenerator[Commit, None]:
    """One path by itself: plain sampling with its thinking capped, or another strategy."""
    if options.path is None:
        cap = share_of(options.thinking_budget, options.paths, "thinking_budget")
        return think_then_answer(run, cap)
    return run.decode(options.path.strategy, inner_params(options))


async def weighed(
    run: Run, options: ParallelThinkingOptions, monitor: Monitor | None
) -> AsyncGenerator[Commit | float, None]:
    """A path's commits and, with a monitor, its score."""
    source = until_stop(run, one_path(run, options))
    moments = source if monitor is None else judged(run, monitor, source)
    async for moment in moments:
        yield moment


def ballot(
    run: Run, options: ParallelThinkingOptions, monitor: Monitor | None, index: int, path: Path
) -> Ballot:
    """What a path that has ended says; one that was cut off abstains."""
    answer = _answer(run, options, path)
    heavy = 1.0
    if monitor is not None:
        heavy = 0.0 if path.score is None else weight(monitor, path.score)
    key, shown = (None, None) if answer is None else (answer.key, answer.shown)
    run.note(
        "path", tokens=path.tokens, path=index, length=path.length, answer=shown, key=key,
        weight=heavy,
    )  # fmt: skip
    return Ballot(index, key, heavy, path.length)


def _answer(run: Run, options: ParallelThinkingOptions, path: Path) -> Canonical | None:
    if not path.finished:
        return None
    return canonical(run.read(path.tokens).content, options.answer)


def _weigher(run: Run, options: ParallelThinkingOptions) -> Monitor | None:
    if options.weights is None:
        return None
    return judge(run.request, options.weights, f"{PARAMS}.weights")


def _returned(
    run: Run, options: ParallelThinkingOptions, vote: Vote, found: Sequence[Path]
) -> Sequence[Commit]:
    """Reports the vote; the commits of the path whose text stands."""
    chosen = _speaking(vote, found)
    written = _written(run, options, vote, found)
    result: dict[str, Any] = {
        "winner": None if vote.winner is None else written[vote.winner],
        "path": chosen,
        "votes": {written[key]: standing.weight for key, standing in vote.standings.items()},
        "counted": len(vote.counted),
    }
    key = None if vote.winner is None else str(vote.winner)
    run.note("vote", summary=result, key=key, **result)
    run.tally.held_back = found[chosen].length
    return found[chosen].whole()


def _speaking(vote: Vote, found: Sequence[Path]) -> int:
    """Whose text stands. Where all abstain: the first that is finished, else who came furthest."""
    if vote.winner is not None and vote.path is not None:
        return vote.path
    finished = [index for index, path in enumerate(found) if path.finished]
    if finished:
        return min(finished, key=lambda index: (found[index].length, index))
    return max(range(len(found)), key=lambda index: (found[index].length, -index))


def _written(
    run: Run, options: ParallelThinkingOptions, vote: Vote, found: Sequence[Path]
) -> Mapping[Hashable, str]:
    """Every answer as its first path wrote it, the winner's as the returned one did.

    By their keys if two were written alike but mean different things, as `7` and `"7"` may.
    """
    first = {key: standing.first for key, standing in vote.standings.items()}
    if vote.winner is not None and vote.path is not None:
        first[vote.winner] = vote.path
    answers = {key: _answer(run, options, found[index]) for key, index in first.items()}
    shown = {
        key: str(key) if one is None else one.shown.rstrip(".") for key, one in answers.items()
    }
    return shown if len(set(shown.values())) == len(shown) else {key: str(key) for key in shown}
