"""Runs one choice of a request and gives out what stands, piece by piece.

The one place where a decoder is driven: its commits become text, its end a summary, its faults
errors of ours. Closing it ends everything the run has started. It does not know HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from decoders.core.base import (
    Commit,
    DecodeRequest,
    DecoderError,
    MonitorCallsSpent,
    OutcomeKind,
    Piece,
    RequestError,
    Summary,
    TraceLevel,
    Usage,
)
from decoders.core.ledger import Ledger
from decoders.core.output import Transcript
from decoders.core.registry import find
from decoders.core.run import Refused, Run, Tally
from decoders.core.stops import tell_end
from decoders.core.trace import Trace
from engines.base import BoundaryError, Finish, UnsupportedError

PASSED = (BoundaryError, RequestError, UnsupportedError)


async def answer(
    request: DecodeRequest, choice: int, ledger: Ledger
) -> AsyncGenerator[Piece, None]:
    """Decodes choice number `choice`; the last piece has `finish` and `summary`.

    Raises `BoundaryError`, `RequestError`, `UnsupportedError` or `DecoderError`.
    """
    events: asyncio.Queue[Piece | None] = asyncio.Queue()
    listener = None
    if request.stream_events:
        listener = _listener(events)
    trace = Trace(request.trace, listener)
    run = Run(request, ledger, trace, Tally(), (choice,))
    ledger.usage.prompt_tokens = len(request.prompt)
    pieces = _pieces(run, ledger, trace)
    source = _with_events(pieces, events) if request.stream_events else pieces
    try:
        async for piece in source:
            yield piece
    finally:
        await source.aclose()
        await pieces.aclose()
        for left in list(run.tally.sources):
            await left.aclose()


def _listener(events: "asyncio.Queue[Piece | None]") -> Any:
    def listen(fields: Mapping[str, Any]) -> None:
        events.put_nowait(Piece(event=fields))

    return listen


async def _with_events(
    pieces: AsyncGenerator[Piece, None], queue: "asyncio.Queue[Piece | None]"
) -> AsyncGenerator[Piece, None]:
    """Pieces and events in the order in which they happen."""

    async def pump() -> None:
        try:
            async for piece in pieces:
                queue.put_nowait(piece)
        finally:
            await pieces.aclose()
            queue.put_nowait(None)

    task = asyncio.create_task(pump())
    try:
        while (piece := await queue.get()) is not None:
            yield piece
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _pieces(run: Run, ledger: Ledger, trace: Trace) -> AsyncGenerator[Piece, None]:
    request = run.request
    transcript = Transcript(request)
    body = find(request.strategy).body(run, request.options)
    refusal: str | None = None
    try:
        async for piece in _commits(body, transcript):
            yield piece
    except Refused as refused:
        refusal = str(refused)
    except MonitorCallsSpent:
        run.tally.cut = run.tally.cut or "max_monitor_calls"
    except PASSED:
        raise
    except Exception as fault:
        raise DecoderError(f"strategy {request.strategy!r} failed") from fault
    finally:
        await body.aclose()
        _book(ledger.usage, transcript)
    yield _last(run, transcript, trace, refusal)


async def _commits(
    body: AsyncGenerator[Commit, None], transcript: Transcript
) -> AsyncGenerator[Piece, None]:
    async for commit in body:
        piece = transcript.add(commit)
        if piece.content or piece.reasoning or piece.logprobs:
            yield piece
        if transcript.stop is not None:
            await tell_end(body, transcript.taken)
            return


def _book(usage: Usage, transcript: Transcript) -> None:
    """Counts what was given out, also where the client left or the engine failed after it."""
    usage.committed_tokens += transcript.committed
    usage.forced_tokens += transcript.forced
    usage.reasoning_tokens += transcript.reasoning
    usage.discarded_tokens = usage.generated_tokens - transcript.sampled


def _last(run: Run, transcript: Transcript, trace: Trace, refusal: str | None) -> Piece:
    held = Piece() if refusal is not None else transcript.end()
    finish, stop_reason = _finish(run, transcript, refusal)
    return Piece(
        held.reasoning,
        held.content,
        finish=finish,
        stop_reason=stop_reason,
        refusal=refusal,
        summary=_summary(run, trace, finish, refusal),
    )


def _finish(run: Run, transcript: Transcript, refusal: str | None) -> tuple[str, str | int | None]:
    if refusal is not None:
        return "content_filter", None
    if transcript.stop is not None:
        return "stop", transcript.stop
    if run.tally.cut is not None:  # the answer is the best so far, though it may look whole
        return "length", None
    if transcript.finish is Finish.STOP:
        custom = transcript.last in run.sampling.stop_token_ids
        return "stop", transcript.last if custom else None
    return "length", None


def _summary(run: Run, trace: Trace, finish: str, refusal: str | None) -> Summary:
    tally = run.tally
    kind, reason = OutcomeKind.COMPLETE, None
    if refusal is not None:
        kind, reason = OutcomeKind.REFUSED, refusal
    elif tally.degraded is not None:
        kind, reason = OutcomeKind.DEGRADED, tally.degraded
    elif finish == "length" or tally.cut is not None:
        kind, reason = OutcomeKind.BUDGET_EXHAUSTED, tally.cut or "max_tokens"
    return Summary(
        run.request.strategy,
        kind,
        reason,
        tally.interventions,
        tally.branches,
        tally.held_back,
        {} if trace.level is TraceLevel.NONE else dict(trace.summary),
        trace.tree(),
    )
