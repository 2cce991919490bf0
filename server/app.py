"""The application: endpoints, what surrounds them, and the life of the parts behind them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from satisfice import __version__
from server import (
    chat,
    completions,
    health,
    models,
    moderations,
    monitors,
    openapi,
    strategies,
    tokenize,
    tracing,
)
from server.errors import describe
from server.fleet import Fleet, FleetError
from server.middleware import Bounded, Guarded, Headed, Locked, Recorded
from server.service import Service
from server.settings.spec import Settings

Failed = Callable[[FleetError], None]
ROUTERS = (chat, completions, models, strategies, monitors, moderations, tokenize, health)
SHOWN = ("x-request-id", "x-decoding-strategy", "retry-after")
ABOUT = "An OpenAI-compatible server whose decoding strategy is chosen per request."


def create_app(
    settings: Settings, fleet: Fleet | None = None, *, failed: Failed | None = None
) -> FastAPI:
    """The application; `fleet` where one is given already. Nothing is loaded before it starts.

    With `failed` the engines load while the server already answers /health and /ready, and a
    start that fails is told to it; without, the application is up once they are.
    """
    service = Service.build(settings, fleet)
    app = FastAPI(
        title="Satisfice",
        version=__version__,
        description=ABOUT,
        lifespan=_lifespan,
        middleware=_surrounding(service),
        exception_handlers={HTTPException: _routed, RequestValidationError: _unread},
        redirect_slashes=False,
        redoc_url=None,
    )
    app.state.service, app.state.failed, app.state.loading = service, failed, False
    for module in ROUTERS:
        app.include_router(module.router)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    return app


def _surrounding(service: Service) -> list[Middleware]:
    """Outermost first. Faults are answered inside CORS, so that a browser may read them."""
    settings = service.settings
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.server.cors_origins,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=SHOWN,
    )
    return [
        Middleware(Recorded, service=service),
        *([cors] if settings.server.cors_origins else []),
        Middleware(Guarded),
        Middleware(Locked, service=service),
        Middleware(Bounded, most=settings.limits.body_bytes),
        Middleware(Headed),
    ]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    tracing.configure(service.settings.server.otlp_endpoint)
    service.fleet.watch_monitors(service.metrics.monitor_call)
    starting = asyncio.create_task(_start(service.fleet, app.state.failed))
    if app.state.failed is None:
        await starting
    try:
        yield
    finally:
        app.state.loading = not starting.done()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await service.fleet.stop()
        tracing.shutdown()


async def _start(fleet: Fleet, failed: Failed | None) -> None:
    try:
        await fleet.start()
    except FleetError as fault:
        if failed is None:
            raise
        failed(fault)


async def _routed(request: Request, fault: Exception) -> Response:
    """No such path, no such method."""
    return describe(fault, request.url.path).response()


async def _unread(request: Request, fault: Exception) -> Response:
    """A path that does not fit its own pattern is no path."""
    return describe(HTTPException(404), request.url.path).response()
