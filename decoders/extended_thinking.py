"""Extended thinking: one trace made longer. The baseline that parallel thinking is judged by.

Source: arXiv 2506.04210 ("Wait & Think more", exact and minimum thinking tokens). Kept for
comparison: thinking forced past its natural end is known to hurt, so nothing here is a default.
"""

from collections.abc import AsyncGenerator
from itertools import count
from typing import Literal

from pydantic import Field as Param

from decoders.core.base import Commit, DecodeRequest, Field, Null, Options, RequestError, decoder
from decoders.core.paths import close, forced, spaced, still_thinking
from decoders.core.run import Run
from engines.base import Capability, Delta, Finish


class ExtendedThinkingOptions(Options):
    """How far the thinking is stretched."""

    mode: Literal["wait", "exact", "minimum"] = Param(
        "wait",
        description="wait: at the end of thinking write `phrase` and go on; exact: think exactly "
        "thinking_budget tokens; minimum: forbid the end before thinking_budget tokens",
    )
    waits: int | None = Param(
        1, ge=0, le=1000, description="mode wait: how often; null = until the budget is used"
    )
    phrase: str = Param("Wait", min_length=1, max_length=200, description="what mode wait writes")
    thinking_budget: int | None = Param(
        None, ge=1, description="thinking tokens, phrases included; then the thinking is closed"
    )


def check(options: ExtendedThinkingOptions, request: DecodeRequest) -> None:
    """Needs a model that thinks and, but for counted waits, a budget."""
    if request.think is None or not request.chat:
        raise RequestError(
            "extended_thinking needs a chat with a model that has think markers",
            "decoding.strategy",
        )
    if options.thinking_budget is None and (options.mode != "wait" or options.waits is None):
        where = "decoding.params.thinking_budget"
        raise RequestError(f"{where}: required with mode {options.mode!r}", where)
    if len(request.think.close_ids) != 1:
        where = "decoding.strategy"
        raise RequestError("the model's close marker is not a single token", where)


@decoder(
    "extended_thinking",
    ExtendedThinkingOptions,
    source="arXiv 2506.04210",
    requires={Capability.GENERATE, Capability.BANNED},
    honours={Field.LOGPROBS, Field.N, Field.LOGIT_BIAS},
    null=Null({"waits": 0}, greedy=True),
    check=check,
)
async def extended_thinking(
    run: Run, options: ExtendedThinkingOptions
) -> AsyncGenerator[Commit, None]:
    """One trace thinks on: "Wait" where it would end, or a set number of tokens."""
    done: list[int] = []
    stretched = wait(run, options) if options.mode == "wait" else hold_open(run, options)
    async for commit in stretched:
        done += commit.tokens
        yield commit
        if commit.finish is Finish.STOP:
            return
    if options.mode != "minimum" and still_thinking(run, done):
        closing = close(run)
        done += closing.tokens
        yield closing
    async for delta in run.generate(done, purpose=("answer",)):
        yield Commit.of(delta)


async def wait(run: Run, options: ExtendedThinkingOptions) -> AsyncGenerator[Commit, None]:
    """Drops the close marker, writes the phrase instead and thinks on, `waits` times."""
    close_id, done = _close_id(run), list[int]()
    for turn in count():
        closing: Commit | None = None
        left = _left(options, done)
        stops = (*run.sampling.stop_token_ids, close_id)
        async for delta in run.generate(
            done, limit=left, stop_token_ids=stops, purpose=("think", turn)
        ):
            kept, closing = hold_back(delta, close_id)
            done += kept.tokens
            yield kept
        if closing is None:
            return
        if turn == options.waits or ((left := _left(options, done)) is not None and left < 1):
            yield closing
            return
        written = forced(run, _spelled(run, options, done)[:left])
        done += written.tokens
        yield written


async def hold_open(run: Run, options: ExtendedThinkingOptions) -> AsyncGenerator[Commit, None]:
    """Thinks `thinking_budget` tokens with the close marker and the end of text forbidden."""
    banned = (*run.sampling.banned, _close_id(run), *run.request.engine.ends)
    async for delta in run.generate(
        limit=options.thinking_budget, banned=banned, purpose=("think",)
    ):
        yield Commit(delta.tokens, False, delta.logprobs)


def hold_back(delta: Delta, close_id: int) -> tuple[Commit, Commit | None]:
    """What of a delta stands, and the close marker at its end, if one ended it."""
    if delta.finish is not Finish.STOP:
        return Commit(delta.tokens, False, delta.logprobs), None
    if delta.tokens[-1] != close_id:
        return Commit.of(delta), None
    before, marker = (
        delta.logprobs and delta.logprobs[:-1],
        delta.logprobs and delta.logprobs[-1:],
    )
    return Commit(delta.tokens[:-1], False, before), Commit(delta.tokens[-1:], False, marker)


def _spelled(run: Run, options: ExtendedThinkingOptions, done: list[int]) -> list[int]:
    text = spaced(run, done, options.phrase)
    return run.request.engine.tokenizer.encode(text, special=False)


def _left(options: ExtendedThinkingOptions, done: list[int]) -> int | None:
    """Thinking tokens that the budget still allows."""
    budget = options.thinking_budget
    return None if budget is None else budget - len(done)


def _close_id(run: Run) -> int:
    assert run.think is not None
    return run.think.close_ids[0]
