"""What pydantic found wrong with a client's JSON, as a fault that names the path of its field.

One wording for bodies and for strategies' parameters. It knows no body and no strategy.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from decoders.core.base import RequestError

CODES = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
WORDS = {"missing": "this field is required", "extra_forbidden": "unknown field"}
SHOWN = 200
"""Characters of a path or a message that are sent back: both can hold the client's own text."""


def located(fault: ValidationError, value: Any, under: str = "") -> RequestError:
    """The fault found in `value`: of a union's several complaints the deepest one.

    `under` is the path at which the value itself stands.
    """
    errors = fault.errors(include_url=False, include_context=False, include_input=False)
    paths = [_path(error["loc"], value) for error in errors]
    deepest = max(range(len(paths)), key=lambda i: (len(paths[i]), -i))
    param = ".".join([*([under] if under else ()), *map(str, paths[deepest])])[:SHOWN] or None
    error = errors[deepest]
    message = _message([e for e, path in zip(errors, paths, strict=True) if path == paths[deepest]])
    code = CODES.get(error["type"], "invalid_type" if _of_type(error) else "invalid_value")
    return RequestError(f"{param}: {message}" if param else message, param, code)


def _of_type(error: ErrorDetails) -> bool:
    return error["type"].endswith("_type")


def _message(errors: Sequence[ErrorDetails]) -> str:
    """What is wrong at one place, in one line."""
    texts = [WORDS.get(e["type"], e["msg"].removeprefix("Value error, ")) for e in errors]
    return " or ".join(dict.fromkeys(texts))[:SHOWN]


def _path(location: Sequence[int | str], value: Any) -> list[int | str]:
    """The location without the names of union members, which are not in the value."""
    path: list[int | str] = []
    at = value
    for step in location:
        inside = isinstance(at, dict) and step in at
        if inside or (isinstance(at, list) and isinstance(step, int) and step < len(at)):
            at = at[step]
        elif not (isinstance(at, dict) and step == location[-1] and _plain(step)):
            continue
        path.append(step)
    return path


def _plain(step: int | str) -> bool:
    """A field's name rather than a validator's, as `list[str]` or `function-after[...]`."""
    return isinstance(step, str) and step.isidentifier() and step not in {"str", "int", "float"}
