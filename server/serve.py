"""Runs the application under uvicorn and ends it gracefully.

On SIGTERM new requests, and those that wait for their turn or for an engine, get 503 while those
that run may end; then the socket closes, then the engines stop. A second signal ends at once. It
knows no endpoint.
"""

import asyncio
import logging
import os
import sys
from types import FrameType
from typing import NoReturn

import uvicorn

from server import logs
from server.app import create_app
from server.fleet import FleetError
from server.service import Service
from server.settings.spec import Settings

LAST_WORDS_S = 2
"""Seconds for answers that were cut off to say so, once the drain is over."""


class Server(uvicorn.Server):
    """Uvicorn that drains before it closes its socket."""

    def __init__(self, config: uvicorn.Config, service: Service, drain_s: float) -> None:
        super().__init__(config)
        self._admission, self._fleet = service.admission, service.fleet
        self._drain_s = drain_s
        self._draining: asyncio.Task[None] | None = None
        self.fault: FleetError | None = None

    def give_up(self, fault: FleetError) -> None:
        """Ends: an engine or monitor that must be there did not start."""
        self.fault, self.should_exit = fault, True

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Remembers the loop, since a signal comes from outside it."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drains on the first signal, ends on the second."""
        if self.started and self._draining is None and not self._admission.draining:
            self._admission.draining = True
            self._loop.call_soon_threadsafe(self._begin)
        else:
            super().handle_exit(sig, frame)

    def _begin(self) -> None:
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        logs.log("server").info("draining", running=self._admission.running)
        self._fleet.drain()
        await self._admission.drain(self._drain_s)
        self.should_exit = True


def serve(settings: Settings, host: str | None = None, port: int | None = None) -> int:
    """Serves until a signal; returns the exit status: 1 if the engines did not start."""
    own = settings.server
    logs.configure(own.log_level, format=own.log_format, prompts=own.log_prompts)
    ends: list[Server] = []
    try:
        app = create_app(settings, failed=lambda fault: ends[0].give_up(fault))
    except ValueError as fault:
        # What only shows when the parts are put together, as members in different units.
        print(fault, file=sys.stderr)
        return 1
    config = uvicorn.Config(
        app,
        host=host or own.host,
        port=own.port if port is None else port,
        loop="auto",
        http="httptools",
        access_log=False,
        log_config=None,
        server_header=False,
        # Longer than common clients and proxies keep a connection, so that they close it, not we.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=LAST_WORDS_S,
    )
    server = Server(config, app.state.service, own.drain_s)
    ends.append(server)
    server.run()
    if server.fault is not None:
        print(server.fault, file=sys.stderr)
    status = 0 if server.started and server.fault is None else 1
    if app.state.loading:
        _leave(status)
    return status


def _leave(status: int) -> NoReturn:
    """Ends without waiting for a model that a thread still loads; its process ends with this."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
