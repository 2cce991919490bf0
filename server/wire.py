"""JSON as it goes over the wire: compact, never with numbers that JSON does not have."""

import json
import math
from collections.abc import Mapping
from typing import Any

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)

quote = json.encoder.encode_basestring_ascii
"""A string as JSON, ASCII only: the fast path of a stream."""


def dumps(value: Any) -> str:
    """`value` as JSON; infinite numbers, which a score may be, become null."""
    try:
        return _ENCODER.encode(value)
    except ValueError:
        return _ENCODER.encode(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
