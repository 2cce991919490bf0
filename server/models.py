"""GET /v1/models and /v1/models/{id}: what can be asked for, virtual ids included."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.objects import ModelList, ModelObject
from server.openapi import answers
from server.service import service_of
from server.wire import dumps

router = APIRouter()


@router.get("/v1/models", **answers(ModelList, "Models"))
async def list_models(request: Request) -> Response:
    """Every model, with each of its strategies and presets as a virtual model."""
    listed = {"object": "list", "data": service_of(request).fleet.listing()}
    return Response(dumps(listed), media_type="application/json")


@router.get("/v1/models/{model:path}", **answers(ModelObject, "Models"))
async def retrieve_model(request: Request, model: str) -> Response:
    """One model; its id may hold slashes."""
    return Response(dumps(service_of(request).fleet.card(model)), media_type="application/json")
