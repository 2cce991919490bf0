"""A stream whose engine is not up yet: kept alive until its answer can be made.

It does not know what the answer is, nor how an engine starts.
"""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from server.admission import ending
from server.answering import failed, stream_head
from server.bodies import Sampled
from server.intake import Chosen, settings_of
from server.record import Record
from server.service import Service
from server.stream import KEEP_ALIVE

Make = Callable[[], Awaitable[Response]]


async def awake(
    service: Service, chosen: Chosen, body: Sampled, record: Record, make: Make
) -> Response:
    """What `make` gives once the models' engines are up; a stream is kept alive meanwhile."""
    fleet = service.fleet
    asleep = [name for name in (chosen.served.base, *chosen.peers) if not fleet.up(name)]
    if not asleep:
        return await make()

    async def woken() -> Response:
        await asyncio.gather(*(fleet.serve(name, chosen.deadline) for name in asleep))
        return await make()

    if not body.stream or settings_of(body).dry_run:
        return await woken()
    return Waking(woken, chosen.strategy.name, record, service.settings.server.keep_alive_s)


class Waking(Response):
    """Comments until `make` has its answer, then that answer."""

    def __init__(self, make: Make, strategy: str, record: Record, every: float) -> None:
        super().__init__()
        self._make, self._strategy, self._record, self._every = make, strategy, record, every
        self._begun = self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers; raises what went wrong as long as nothing has been sent."""

        async def forward(message: Message) -> None:
            body = message["type"] == "http.response.body"
            self._ended = body and not message.get("more_body", False)
            if not (self._begun and message["type"] == "http.response.start"):
                await send(message)

        try:
            response = await self._made(receive, send)
            if response is not None:
                await response(scope, receive, forward)
        except asyncio.CancelledError:
            if self._begun and not self._ended:
                await self._fail(ending(), send)
            raise
        except Exception as fault:
            if not self._begun or self._ended:
                raise
            await self._fail(fault, send)

    async def _made(self, receive: Receive, send: Send) -> Response | None:
        """The answer; None if the client went away first."""
        making = asyncio.ensure_future(self._make())
        leaving = asyncio.create_task(_gone(receive))
        try:
            while not making.done():
                await asyncio.wait(
                    {making, leaving}, timeout=self._every, return_when=asyncio.FIRST_COMPLETED
                )
                if leaving.done() and not making.done():
                    self._record.aborted = True
                    return None
                if not making.done():
                    await self._keep_alive(send)
            return await making
        finally:
            for task in (making, leaving):
                task.cancel()
            await asyncio.gather(making, leaving, return_exceptions=True)

    async def _fail(self, fault: Exception, send: Send) -> None:
        await send(_part(failed(fault, self._record).encode(), more=False))

    async def _keep_alive(self, send: Send) -> None:
        if not self._begun:
            self._begun = True
            await send(stream_head(self._strategy))
        await send(_part(KEEP_ALIVE))


def _part(body: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _gone(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
