"""The OpenAPI document: request bodies, answers, errors and their statuses, as they really are.

Endpoints read their own bodies, so that every fault has our error object; what they accept is
declared here.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter

from server.bodies import ChatBody, TextBody
from server.fields import Effect, Endpoint, of
from server.objects import DryRun, Error

REF = "#/components/schemas/{model}"

ERRORS = {
    400: "The request cannot be answered as it is.",
    401: "No API key, or a wrong one.",
    403: "The key may not use this.",
    404: "There is no such thing.",
    405: "Not with this method.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Over the key's rate.",
    500: "The server, the engine or the strategy failed.",
    503: "Not ready, too busy, shutting down, or the engine is lost.",
}
READING = (401, 404, 500)
WRITING = (400, 401, 403, 404, 413, 415, 429, 500, 503)

Route = dict[str, Any]

_DECLARED: set[type] = {Error, DryRun}
"""All that routes have named: the document's components."""


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": REF.format(model=kind.__name__)}


def _content(schema: Any, media: str = "application/json") -> dict[str, Any]:
    return {media: {"schema": schema}}


def _errors(statuses: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"description": ERRORS[status], "content": _content(_ref(Error))}
        for status in statuses
    }


def answers(kind: type, tag: str, *, statuses: tuple[int, ...] = READING) -> Route:
    """Arguments of a route that answers with `kind` and takes no body."""
    _DECLARED.add(kind)
    found = {"description": "The answer.", "content": _content(_ref(kind))}
    return {"responses": {200: found, **_errors(statuses)}, "tags": [tag], "response_model": None}


def takes(body: type[BaseModel], kind: type, tag: str) -> Route:
    """Arguments of a route that takes a JSON body."""
    _DECLARED.add(body)
    declared = {"required": True, "content": _content(_ref(body))}
    return {
        **answers(kind, tag, statuses=WRITING),
        "openapi_extra": {"requestBody": declared},
    }


def decodes(endpoint: str, body: type[BaseModel], kind: type) -> Route:
    """Arguments of a route that decodes: JSON, a dry run's estimate, or a stream."""
    made = takes(body, kind, "Decoding")
    either = {"anyOf": [_ref(kind), _ref(DryRun)]}
    stream = _content({"type": "string"}, "text/event-stream")
    made["responses"][200]["content"] = {**_content(either), **stream}
    made["operation_id"] = f"create_{endpoint}"
    return made


def _components() -> dict[str, Any]:
    """The JSON Schemas of everything that is taken and given."""
    kinds = sorted(_DECLARED, key=lambda kind: kind.__name__)
    adapters: list[Any] = [(kind.__name__, "validation", TypeAdapter(kind)) for kind in kinds]
    found, definitions = TypeAdapter.json_schemas(adapters, ref_template=REF)
    schemas: dict[str, Any] = dict(definitions.get("$defs", {}))
    for (name, _), schema in found.items():
        schemas.setdefault(str(name), schema)
    _add_ignored(schemas)
    return schemas


def _add_ignored(schemas: dict[str, Any]) -> None:
    """Fields that are accepted without effect stand in no model, but a client may send them."""
    for endpoint, body in ((Endpoint.CHAT, ChatBody), (Endpoint.TEXT, TextBody)):
        properties = schemas[body.__name__]["properties"]
        for row in of(endpoint).values():
            if row.effect is Effect.IGNORED:
                properties[row.name] = {"description": f"Accepted without effect: {row.note}."}


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document; made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemas = {**made.get("components", {}).get("schemas", {}), **_components()}
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        key = {"type": "http", "scheme": "bearer", "description": "Where keys are configured."}
        made["components"] = {"schemas": schemas, "securitySchemes": {"key": key}}
        made["security"] = [{}, {"key": []}]
        for path in made["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        app.openapi_schema = made
    return app.openapi_schema
