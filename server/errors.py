"""From exceptions to HTTP: the one place that knows which fault has which status.

RequestError, UnsupportedError  400 (404 model_not_found, strategy_not_found)
AuthError 401, ForbiddenError 403, too large 413, not JSON 415
LimitError                      429 or 503 with Retry-After
EngineDeadError, EngineBusyError, MonitorError  503 with Retry-After
other BoundaryError, DecoderError, anything else  500
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.responses import Response

from decoders.core.base import DecoderError, LimitError, RequestError
from engines.base import BoundaryError, EngineBusyError, EngineDeadError, UnsupportedError
from engines.tokenizer import TemplateFault
from monitors.core.base import MonitorError
from server.auth import AuthError, ForbiddenError

ABSENT = frozenset({"model_not_found", "no_guard"})
RETRY_DEAD = 5.0
"""Seconds after which a lost engine may be back."""

OUTSIDE = ("/v1/responses", "/v1/embeddings", "/v1/audio", "/v1/images")


class BodyError(Exception):
    """The body cannot be read: 413 for its size, 415 for its type."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as a client sees it."""

    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> str:
        """The error object as JSON."""
        own = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return json.dumps({"error": own})

    def response(self) -> Response:
        """The HTTP answer."""
        return Response(
            self.body(), self.status, headers=dict(self.headers), media_type="application/json"
        )


def _wrong(status: int, message: str, param: str | None, code: str | None) -> Fault:
    return Fault(status, message, "invalid_request_error", param, code)


def _wait(seconds: float) -> dict[str, str]:
    """Retry-After wants whole seconds."""
    return {"retry-after": str(max(1, math.ceil(seconds)))}


def _refused(fault: RequestError) -> Fault:
    absent = fault.code in ABSENT or (fault.code == "strategy_not_found" and fault.param is None)
    return _wrong(404 if absent else 400, str(fault), fault.param, fault.code or "invalid_value")


def _limited(fault: LimitError) -> Fault:
    kind = "rate_limit_error" if fault.status == 429 else "service_unavailable"
    code = "rate_limit_exceeded" if fault.status == 429 else "overloaded"
    return Fault(fault.status, str(fault), kind, None, code, _wait(fault.retry_after))


def _routed(fault: HTTPException, path: str) -> Fault:
    code = {404: "not_found", 405: "method_not_allowed"}.get(fault.status_code)
    message = str(fault.detail)
    if fault.status_code == 404:
        known = path.startswith(OUTSIDE)
        message = f"{path} is not served here" if known else f"there is nothing at {path}"
    wrong = _wrong(fault.status_code, message, None, code)
    return Fault(wrong.status, message, wrong.type, None, code, dict(fault.headers or {}))


def _ours(fault: Exception) -> Fault:
    """5xx: ours, or of what stands behind us."""
    if isinstance(fault, EngineDeadError):
        dead = "service_unavailable"
        return Fault(503, str(fault), dead, None, "engine_lost", _wait(RETRY_DEAD))
    if isinstance(fault, EngineBusyError):
        return Fault(503, str(fault), "service_unavailable", None, "engine_busy", _wait(1))
    if isinstance(fault, MonitorError):
        lost = _wait(RETRY_DEAD)
        return Fault(503, str(fault), "service_unavailable", None, "monitor_lost", lost)
    # What has failed after work was done would only be paid for again.
    once = {"x-should-retry": "false"}
    if isinstance(fault, BoundaryError):
        return Fault(500, str(fault), "server_error", None, "engine_error", once)
    if isinstance(fault, DecoderError):
        return Fault(500, str(fault), "server_error", None, "strategy_failed", once)
    return Fault(500, "the server failed", "server_error", None, "internal_error", once)


def describe(fault: Exception, path: str = "") -> Fault:
    """The error that a client gets for an exception."""
    match fault:
        case RequestError():
            return _refused(fault)
        case UnsupportedError():
            return _wrong(400, str(fault), fault.param, "unsupported")
        case TemplateFault():
            return _wrong(400, str(fault), "messages", "template_error")
        case BodyError():
            return _wrong(fault.status, str(fault), None, fault.code)
        case AuthError():
            unknown = {"www-authenticate": "Bearer"}
            kind = "authentication_error"
            return Fault(401, str(fault), kind, None, "invalid_api_key", unknown)
        case ForbiddenError():
            return Fault(403, str(fault), "permission_error", fault.param, "not_allowed")
        case LimitError():
            return _limited(fault)
        case HTTPException():
            return _routed(fault, path)
    return _ours(fault)
