"""Reads a request's body: JSON to a checked body, every fault with the path of its field.

It knows bodies and the table of fields, no model and no engine.
"""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from decoders.core.base import RequestError
from decoders.core.faults import located
from server.errors import BodyError
from server.fields import Endpoint, honoured

T = TypeVar("T", bound=BaseModel)


async def read(request: Request, model: type[T], endpoint: Endpoint | None = None) -> T:
    """The request's body as a `model`.

    Raises `RequestError` with the path of the first fault, `BodyError` for what is no JSON.
    """
    kind = request.headers.get("content-type")
    if kind is not None and not _is_json(kind):
        raise BodyError("the body must be application/json", 415, "unsupported_media_type")
    return parse(await request.body(), model, endpoint)


def _is_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().lower()
    return media == "application/json" or (
        media.startswith("application/") and media.endswith("+json")
    )


def parse(raw: bytes, model: type[T], endpoint: Endpoint | None = None) -> T:
    """The same for a body that has been read."""
    try:
        body = from_json(raw, allow_inf_nan=False, cache_strings="keys")
    except ValueError as fault:
        raise RequestError(f"the body is not valid JSON: {fault}", None, "invalid_json") from None
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object", None, "invalid_json")
    if endpoint is not None:
        body = honoured(endpoint, body)
    try:
        return model.model_validate(body)
    except ValidationError as fault:
        raise located(fault, body) from None
