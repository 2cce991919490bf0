"""POST /v1/moderations: answered by a configured guard, 404 where there is none.

A guard has one verdict and a label of its own; the API's categories are reported as far as the
label names one of them.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from decoders.core.base import Estimate, RequestError, Usage
from monitors.core.base import Monitor, Score, Stage, UnreadableError
from server.auth import ForbiddenError, Key, permit_model
from server.bodies import Body
from server.objects import Moderation, Verdict
from server.openapi import takes
from server.parsing import read
from server.service import Service, key_of, record_of, service_of
from server.wire import dumps

router = APIRouter()
T = TypeVar("T")

AT_ONCE = 16
"""Texts of one request that are judged at the same time."""

CATEGORIES = (
    "hate", "hate/threatening", "harassment", "harassment/threatening", "illicit",
    "illicit/violent", "self-harm", "self-harm/intent", "self-harm/instructions", "sexual",
    "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


class TextPart(Body):
    """A part of one input; no guard reads other kinds of parts."""

    type: Literal["text"]
    text: str


Many = Annotated[list[T], Field(min_length=1, max_length=128)]


class ModerationBody(Body):
    """Body of POST /v1/moderations."""

    input: str | Many[str] | Many[TextPart]
    """One text, a list of texts that are judged one by one, or the parts of one text."""
    model: str | None = None
    """A guard's name; null is the first one."""


def guard_of(service: Service, name: str | None) -> tuple[str, Monitor]:
    """The guard that answers: any monitor that judges safety. Raises `RequestError` (404)."""
    found = service.fleet.monitors.items()
    guards = {one: monitor for one, monitor in found if monitor.judges == "safety"}
    if name is not None and name not in guards:
        message = f"there is no guard {name[:64]!r}"
        raise RequestError(message, "model", "model_not_found")
    if not guards:
        raise RequestError("no guard is configured", None, "no_guard")
    chosen = name or next(iter(guards))
    return chosen, guards[chosen]


def texts_of(body: ModerationBody) -> list[str]:
    """What is judged, one by one; the parts of one text are read together."""
    if isinstance(body.input, str):
        return [body.input]
    parts = [one.text for one in body.input if isinstance(one, TextPart)]
    return ["\n\n".join(parts)] if parts else [one for one in body.input if isinstance(one, str)]


@router.post("/v1/moderations", **takes(ModerationBody, Moderation, "Monitors"))
async def moderations(request: Request) -> Response:
    """Judges texts."""
    body = await read(request, ModerationBody)
    service, key, record = service_of(request), key_of(request), record_of(request)
    name, guard = guard_of(service, body.model)
    texts = texts_of(body)
    _permit(key, name, len(texts))
    request.scope["prompt"] = "\n".join(texts)
    estimate = Estimate(rows=1, generated_tokens=0, engine_requests=0, monitor_calls=len(texts))
    async with service.admission.admit(estimate, key=key, waited=record.wait) as ticket:
        try:
            scores = await _unless_gone(request, _judged(guard, texts, record.usage))
        finally:
            ticket.settle(0)
    answer: Moderation = {
        "id": f"modr-{uuid4().hex}",
        "model": name,
        "results": [_verdict(guard, score) for score in scores],
    }
    return Response(dumps(answer), media_type="application/json")


def _permit(key: Key | None, guard: str, calls: int) -> None:
    """Raises ForbiddenError for a guard, or more calls, than the key may use."""
    permit_model(key, guard)
    most = key.budget.max_monitor_calls if key is not None else None
    if most is not None and calls > most:
        raise ForbiddenError(f"this key may ask for up to {most} texts", "input")


async def _judged(guard: Monitor, texts: Sequence[str], usage: Usage) -> list[Score]:
    """The score of each text, in order; the first that fails ends the others."""
    room = asyncio.Semaphore(AT_ONCE)

    async def judge(at: int, text: str) -> Score:
        async with room:
            usage.monitor_calls += 1
            try:
                score = await guard.score([{"role": "user", "content": text}], [], Stage.ANSWER)
            except UnreadableError as fault:
                where = "input" if len(texts) == 1 else f"input.{at}"
                raise RequestError(str(fault), where, "text_unreadable") from fault
            usage.monitor_tokens += score.tokens
            return score

    try:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(judge(at, text)) for at, text in enumerate(texts)]
    except* Exception as faults:
        raise faults.exceptions[0] from None
    return [task.result() for task in asked]


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which ends at once if the client goes away."""
    working = asyncio.create_task(work)
    # The body has been read: what comes now is that the client has gone.
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


def _verdict(guard: Monitor, score: Score) -> Verdict:
    flagged = score.value < guard.threshold
    named = {one: flagged and one == score.label for one in CATEGORIES}
    return {
        "flagged": flagged,
        "categories": named,
        "category_scores": {one: float(hit) for one, hit in named.items()},
        "category_applied_input_types": {one: ["text"] for one in CATEGORIES},
        "score": score.value,
        "label": score.label,
    }
