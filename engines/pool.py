"""HTTP calls over one pool of connections, which may be closed at any moment.

httpx knows only connections that stand, so a call on its way to one would outlive its pool. It
knows no server and reads no answer.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx


class Pool:
    """Calls to the server at `url`, with or without /v1; none is repeated once it was sent."""

    def __init__(
        self, url: str, key: str | None, timeout: httpx.Timeout, *, retries: int, kept: int
    ) -> None:
        """`key` stands in a header; connecting is tried `retries` times more, `kept` stay open."""
        self._sending: set[asyncio.Task[httpx.Response]] = set()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept)
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/").removesuffix("/v1"),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
            transport=httpx.AsyncHTTPTransport(retries=retries, limits=limits),
        )

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._client.is_closed

    async def close(self) -> None:
        """Ends all calls and closes every connection."""
        for sending in self._sending:
            sending.cancel()
        await self._client.aclose()

    async def send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, stream: bool = False
    ) -> httpx.Response:
        """The answer, or of a stream its headers. Raises RuntimeError once the pool is closed."""
        request = self._client.build_request(method, path, json=body)
        sending = asyncio.create_task(self._client.send(request, stream=stream))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        try:
            return await sending
        except asyncio.CancelledError as reason:
            if _ended_well(sending):  # in the same moment: nobody else can close it
                await sending.result().aclose()
            if self.closed and not _cancelled():
                raise RuntimeError("the connections were closed") from reason
            raise


def _cancelled() -> bool:
    """Whether somebody wants the running task, and not only what it waits for, to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _ended_well(task: asyncio.Task[Any]) -> bool:
    """Whether it has a result."""
    return task.done() and not task.cancelled() and task.exception() is None
