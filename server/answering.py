"""Runs a request that has been checked: lets it in, drives its choices, writes the answer.

Watches the client meanwhile: one that has gone away ends everything within a moment. It does not
know what the answer looks like; that is the plan's `events` or `answer`.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from decoders.core.base import DecodeRequest, Estimate, LimitError, OutcomeKind, Piece, Usage
from decoders.core.ledger import Ledger, total
from decoders.core.scope import Together
from engines.base import UnsupportedError
from server import logs, tracing
from server.answers import Answer
from server.auth import Key
from server.errors import describe
from server.record import Record
from server.service import Service
from server.stream import DONE, KEEP_ALIVE, Events
from server.wire import dumps

STRUCTURED = "response_format"

Source = Callable[[], AsyncGenerator[Piece, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked request. `sources` has one source of pieces per choice, `prompts` one per prompt.

    Exactly one of `events` (streamed) and `answer` is set. `complete` adds to the finished object.
    `grammar` is the field that asked for one: engines know it by its first name only.
    """

    key: Key | None
    requests: Sequence[DecodeRequest]
    sources: Sequence[Source]
    ledgers: Sequence[Ledger]
    estimate: Estimate
    events: Events | None = None
    answer: Answer | None = None
    include_usage: bool = False
    complete: Callable[[Any], None] | None = None
    grammar: str | None = None

    @property
    def deadline(self) -> float | None:
        """When waiting in the queue has no point any more, on the event loop's clock."""
        first = self.requests[0]
        limit = first.budget.deadline_ms
        return None if limit is None else first.arrival + limit / 1000

    def usage(self) -> Usage:
        """What was spent so far; every prompt counts once."""
        whole = total(list(self.ledgers))
        whole.prompt_tokens = sum(len(request.prompt) for request in self.requests)
        return whole


async def pieces(sources: Sequence[Source]) -> AsyncGenerator[tuple[int, Piece], None]:
    """The pieces of all choices as they come; closing it closes every source."""
    if len(sources) == 1:
        async with aclosing(sources[0]()) as only:
            async for piece in only:
                yield 0, piece
        return
    async with Together([source() for source in sources]) as moments:
        async for index, moment in moments:
            if moment is not None:
                yield index, moment


def head(strategy: str, kind: bytes, *more: tuple[bytes, bytes]) -> Message:
    """What goes before an answer's body."""
    own = [(b"content-type", kind), (b"x-decoding-strategy", strategy.encode()), *more]
    return {"type": "http.response.start", "status": 200, "headers": own}


def stream_head(strategy: str) -> Message:
    """The same for a stream: nothing between here and the client may hold it back."""
    unheld = (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")
    return head(strategy, b"text/event-stream; charset=utf-8", *unheld)


def failed(exception: Exception, record: Record) -> str:
    """The event that says what went wrong in the middle of a stream; noted and logged."""
    fault = describe(exception)
    record.error = fault.code
    if fault.status >= 500:
        logs.log("server").error("failed", code=fault.code, exc_info=exception)
    return f"data: {fault.body()}\n\n"


class Answering(Response):
    """The answer to a plan, made while it is sent."""

    def __init__(self, service: Service, plan: Plan, record: Record) -> None:
        super().__init__()
        self._service = service
        self._plan = plan
        self._record = record
        self._strategy = plan.requests[0].strategy
        self._arrival = plan.requests[0].arrival
        self._last = 0.0  # when something was last sent, on the event loop's clock
        self._started = False
        self._ended = False
        self._gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers; raises what went wrong as long as nothing has been sent."""
        self._scope, self._send = scope, send
        self._clock = asyncio.get_running_loop().time
        self._last = self._clock()
        self._record.strategy = self._strategy
        work = asyncio.create_task(self._traced(scope))
        watch = asyncio.create_task(self._watch(receive, work))
        try:
            await work
        except asyncio.CancelledError:
            if not self._gone:
                await self._cut_off()
                raise
            self._record.aborted = True
        finally:
            watch.cancel()
            work.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)

    async def _traced(self, scope: Scope) -> None:
        if not tracing.enabled():
            await self._work()
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        names = {"strategy": self._strategy, "model": self._record.model}
        with tracing.request_span(headers, **names):
            await self._work()

    async def _work(self) -> None:
        try:
            await self._admit()
        except Exception as exception:
            if isinstance(exception, UnsupportedError) and exception.param == STRUCTURED:
                exception.param = self._plan.grammar or STRUCTURED
            if not self._started:
                raise
            await self._fail(exception)

    async def _admit(self) -> None:
        plan = self._plan
        service = self._service
        beside = service.admission.beside(plan.estimate.rows)
        likely = service.costs.expect(plan.requests, plan.estimate, beside)
        self._record.expected = likely.row_seconds
        door = service.admission.admit(
            plan.estimate, key=plan.key, deadline=plan.deadline,
            row_seconds=likely.mean_row_seconds, waited=self._record.wait,
        )  # fmt: skip
        async with door as ticket:
            began, beside = self._clock(), service.admission.rows - ticket.rows
            try:
                await (self._whole() if plan.events is None else self._stream(plan.events))
            finally:
                self._record.usage = plan.usage()
                ticket.settle(self._record.usage.generated_tokens)
            # Only what ended by itself says what the like of it costs.
            steps, held = self._record.usage.generated_tokens, ticket.rows * (self._clock() - began)
            self._record.held = held
            service.costs.learn(plan.requests, plan.estimate, steps, held, beside)

    def _pieces(self) -> AsyncGenerator[tuple[int, Piece], None]:
        found = pieces(self._plan.sources)
        return self._heard(found) if self._service.settings.server.log_prompts else found

    async def _heard(
        self, found: AsyncGenerator[tuple[int, Piece], None]
    ) -> AsyncGenerator[tuple[int, Piece], None]:
        """Notes the text for the log, where that is configured."""
        async with aclosing(found):
            async for index, piece in found:
                self._scope["answer"] = self._scope.get("answer", "") + piece.content
                yield index, piece

    async def _whole(self) -> None:
        try:
            body = dumps(await self._object()).encode()
        except BaseException:
            for ledger in self._plan.ledgers:
                ledger.usage.withhold()
            raise
        length = str(len(body)).encode()
        self._started = True
        await self._send(head(self._strategy, b"application/json", (b"content-length", length)))
        await self._send({"type": "http.response.body", "body": body})

    async def _object(self) -> Any:
        plan = self._plan
        answer = plan.answer
        assert answer is not None
        async with aclosing(self._pieces()) as found:
            async for index, piece in found:
                self._note(piece)
                answer.add(index, piece)
        whole = answer.whole(plan.usage())
        if plan.complete is not None:
            plan.complete(whole)
        return whole

    async def _stream(self, events: Events) -> None:
        send, clock = self._send, self._clock
        async with aclosing(self._pieces()) as found:
            async for index, piece in found:
                text = events.event(index, piece)
                if not text:
                    continue
                if piece.finish is not None or self._record.first_token is None:
                    self._note(piece)
                if not self._started:
                    await self._begin()
                self._last = clock()
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        tail = events.usage(self._plan.usage()) if self._plan.include_usage else ""
        await self._end(tail + DONE)

    def _note(self, piece: Piece) -> None:
        """What the record says of the answer: its first token, how its choices ended."""
        record = self._record
        if record.first_token is None and (piece.content or piece.reasoning):
            record.first_token = self._clock() - self._arrival
        if piece.summary is None:
            return
        record.interventions += piece.summary.interventions
        record.branches += piece.summary.branches
        if record.outcome in ("", OutcomeKind.COMPLETE):
            record.outcome = piece.summary.outcome.value

    async def _begin(self) -> None:
        """Starts the stream, once; whatever fails before has a status of its own."""
        if not self._started:
            self._started = True
            await self._send(stream_head(self._strategy))

    async def _end(self, text: str) -> None:
        await self._begin()
        self._ended = True  # no keep-alive from here on
        await self._send({"type": "http.response.body", "body": text.encode(), "more_body": False})

    async def _fail(self, exception: Exception) -> None:
        """An error after the stream began: one event, then the end."""
        await self._end(failed(exception, self._record))

    async def _cut_off(self) -> None:
        """The server ends before the answer does: a stream says so."""
        if self._started and self._plan.events is not None:
            await self._fail(LimitError("the server is shutting down", 1.0))

    async def _watch(self, receive: Receive, work: asyncio.Task[None]) -> None:
        """Cancels the work when the client has gone; keeps a silent stream alive."""
        every = self._service.settings.server.keep_alive_s
        while True:
            try:
                async with asyncio.timeout_at(self._last + every):
                    message = await receive()
            except TimeoutError:
                await self._keep_alive(every)
                continue
            if message["type"] == "http.disconnect":
                self._gone = True
                work.cancel()
                return

    async def _keep_alive(self, every: float) -> None:
        """A comment, also while the request waits in the queue: proxies cut what is silent."""
        if self._clock() - self._last < every:
            return
        self._last = self._clock()
        if self._plan.events is not None and not self._ended:
            await self._begin()
            await self._send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})
