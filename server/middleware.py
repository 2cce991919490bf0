"""What surrounds every request, as plain ASGI: id and record, faults, body size, API keys.

Plain ASGI, since a stream passes through it chunk by chunk. It knows no endpoint.
"""

import asyncio
import re
import time
import uuid
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from decoders.core.base import LimitError
from server import logs
from server.admission import ending
from server.errors import BodyError, describe
from server.record import Record
from server.service import Service

LOCKED = ("/v1", "/tokenize", "/tokenizer_info", "/detokenize")
QUIET = frozenset({"/health", "/ready", "/metrics"})
KNOWN = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/v1/strategies",
        "/v1/monitors",
        "/v1/moderations",
        "/tokenize",
        "/detokenize",
        *QUIET,
    }
)
LISTS = ("/v1/models", "/v1/strategies")
LINGER, LINGER_S = 16, 5.0
"""How much of a body that is too large is still read, in its bounds, and for how many seconds."""
PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def request_id(given: str | None) -> str:
    """The client's own id if it is short and plain, else a fresh one."""
    if given and PLAIN.fullmatch(given):
        return given
    return uuid.uuid4().hex


def endpoint(path: str) -> str:
    """The path as metrics know it, ids left out."""
    if path in KNOWN:
        return path
    return next((known for known in LISTS if path.startswith(f"{known}/")), "other")


class Recorded:
    """Gives every request its id and, when it has ended, its lines in log and metrics."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        record = Record(
            request_id=request_id(Headers(scope=scope).get("x-request-id")),
            endpoint=endpoint(path),
            arrival=asyncio.get_running_loop().time(),
        )
        scope["record"] = record
        logs.bind(request_id=record.request_id)
        began = time.monotonic()

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = record.request_id
            await send(message)

        try:
            await self.app(scope, receive, tagged)
        finally:
            record.seconds = time.monotonic() - began
            if path not in QUIET:
                self.service.metrics.observe(record)
                logs.access(record, prompt=scope.get("prompt"), answer=scope.get("answer"))
            logs.clear()


class Guarded:
    """Turns every exception into its error object; after the answer began, it can only end.

    A request is cancelled by the server's end alone, which is told before it ends.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, whatever happens."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except ClientDisconnect:
            scope["record"].aborted = True
        except asyncio.CancelledError:
            if not started:
                fault = describe(ending())
                scope["record"].error = fault.code
                await fault.response()(scope, receive, send)
            raise
        except Exception as exception:
            fault = describe(exception, scope["path"])
            scope["record"].error = fault.code
            # A refusal is no failure, and under overload there are many: the access line is enough.
            if fault.status >= 500 and not isinstance(exception, LimitError):
                logs.log("server").error("failed", code=fault.code, exc_info=exception)
            if started:
                raise
            await fault.response()(scope, receive, send)


class Bounded:
    """Refuses bodies above a size, whether announced or found while reading."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most

    def _check(self, size: int) -> None:
        if size > self.most:
            message = f"the body is larger than {self.most} bytes"
            raise BodyError(message, 413, "body_too_large")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is small enough."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            self._check(seen)
            return message

        try:
            self._check(int(announced) if announced.isdecimal() else 0)
            await self.app(scope, counted, send)
        except BodyError as fault:
            if fault.status == 413:
                await self._let_pass(receive)
            raise

    async def _let_pass(self, receive: Receive) -> None:
        """Reads on within bounds: a client that still sends when the connection closes would find
        it reset, not the answer.
        """
        left = LINGER * self.most
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return


class Locked:
    """Lets nobody in without a key, where keys are configured."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks the key of what is locked; /health, /ready, /metrics and /docs are open."""
        if scope["type"] == "http" and scope["path"].startswith(LOCKED):
            key = self.service.keys.authenticate(Headers(scope=scope).get("authorization"))
            scope["key"] = key
            if key is not None:
                scope["record"].key = key.name
        await self.app(scope, receive, send)


class Headed:
    """Answers HEAD as GET, for probes that ask so; the server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, send)
