"""GET /health, /ready and /metrics: open to everybody, for probes and Prometheus."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.objects import Health, Ready
from server.openapi import Route, answers
from server.service import service_of
from server.wire import dumps

router = APIRouter()

_UNREADY = answers(Ready, "Operation", statuses=(500,))
_UNREADY["responses"][503] = {**_UNREADY["responses"][200], "description": "Not ready, and why."}

_FIGURES: Route = {
    "responses": {
        200: {"description": "Figures.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
    "tags": ["Operation"],
    "response_class": Response,
}


@router.get("/health", **answers(Health, "Operation", statuses=(500,)))
async def health(request: Request) -> Response:
    """The process lives."""
    return Response(dumps(Health(status="ok")), media_type="application/json")


@router.get("/ready", **_UNREADY)
async def ready(request: Request) -> Response:
    """Every engine and monitor that is not lazy can answer; 503 with the reasons otherwise."""
    service = service_of(request)
    found = service.fleet.ready().as_dict()
    if service.admission.draining:
        found = {**found, "ready": False, "reasons": [*found["reasons"], "shutting down"]}
    headers = {} if found["ready"] else {"retry-after": "5"}
    status = 200 if found["ready"] else 503
    return Response(dumps(found), status, headers=headers, media_type="application/json")


@router.get("/metrics", **_FIGURES)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    body, kind = service_of(request).metrics.render(request.headers.get("accept"))
    return Response(body, media_type=None, headers={"content-type": kind})
