"""HTTP to one OpenAI-compatible server: requests, streams and whose fault a failure is.

Closing a stream closes its connection, which is how the upstream learns to abort. It knows status
codes and server-sent events, and neither tokens nor sampling.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx

from engines.base import (
    EngineBusyError,
    EngineDeadError,
    EngineError,
    UnsupportedError,
)
from engines.pool import Pool

Json = Mapping[str, Any]
BUSY = {408, 425, 429, 503}
REFUSED = {400, 413, 422}
SETTING = {401, 403, 404}
LOST = (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError)
"""Nobody is there, or is no longer: not a server that is only slow."""


def fault(name: str, status: int, body: Any) -> Exception:
    """The error that an upstream's status and body stand for, by who is at fault."""
    error = body.get("error", body) if isinstance(body, dict) else body
    said = error.get("message") if isinstance(error, dict) else None
    text = f"upstream of engine {name!r} answered {status}: {said or error}"
    if status in REFUSED:
        return UnsupportedError(text, error.get("param") if isinstance(error, dict) else None)
    if status in BUSY:
        return EngineBusyError(text)
    if status in SETTING:
        text += " (check url, model and api_key_env)"
    return EngineError(text)


class Upstream:
    """A connection pool to the server at `url` (with or without /v1).

    Connecting is tried again by the transport; a request that was sent is never repeated.
    """

    def __init__(self, name: str, url: str, key: str | None, timeout: httpx.Timeout) -> None:
        self._name = name
        self._pool = Pool(url, key, timeout, retries=2, kept=64)

    async def close(self) -> None:
        """Closes every connection; running calls end with EngineDeadError."""
        await self._pool.close()

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and body of a GET."""
        with self._named():
            response = await self._pool.send("GET", path)
            return response.status_code, readable(response)

    async def post(self, path: str, body: Json) -> Any:
        """The JSON that a POST answers with."""
        with self._named():
            response = await self._pool.send("POST", path, body)
        if response.is_error:
            raise fault(self._name, response.status_code, readable(response))
        return readable(response)

    async def events(self, path: str, body: Json) -> AsyncGenerator[Any, None]:
        """The JSON of each server-sent event of a streamed POST, until [DONE]."""
        async with self._stream(path, body) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                text = line.removeprefix("data:").strip()
                if text == "[DONE]":
                    return
                event = json.loads(text)
                if "error" in event:
                    error = event["error"]
                    code = error.get("code") if isinstance(error, dict) else None
                    raise fault(self._name, code if isinstance(code, int) else 500, event)
                yield event

    @asynccontextmanager
    async def _stream(self, path: str, body: Json) -> AsyncIterator[httpx.Response]:
        with self._named():
            sent = await self._pool.send("POST", path, body, stream=True)
            async with aclosing(sent) as response:
                if response.is_error:
                    await response.aread()
                    raise fault(self._name, response.status_code, readable(response))
                yield response

    def _named(self) -> "_Named":
        return _Named(self._name, self._pool)


class _Named:
    """Turns what httpx raises into our errors, with the engine's name."""

    def __init__(self, name: str, pool: Pool) -> None:
        self._name, self._pool = name, pool

    def __enter__(self) -> None:
        if self._pool.closed:
            raise EngineDeadError(f"engine {self._name!r} is stopped")

    def __exit__(self, kind: object, raised: BaseException | None, trace: object) -> None:
        # A pool closed under a running read answers with more than httpx's own errors.
        if self._pool.closed and isinstance(raised, Exception):
            raise EngineDeadError(f"engine {self._name!r} was stopped") from raised
        if isinstance(raised, httpx.HTTPError):
            kind = EngineDeadError if isinstance(raised, LOST) else EngineError
            words = str(raised) or type(raised).__name__
            raise kind(f"upstream of engine {self._name!r}: {words}") from raised
        if isinstance(raised, ValueError):
            raise EngineError(f"upstream of engine {self._name!r} sent no JSON") from raised


def readable(response: httpx.Response) -> Any:
    """The body as JSON, or as text where it is none."""
    try:
        return response.json()
    except ValueError:
        return response.text[:500]
