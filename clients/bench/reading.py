"""JSON that people wrote, in an option or a file."""

import json
from typing import Any


def json_object(text: str, where: str) -> dict[str, Any]:
    """The object that it is. Raises ValueError that says `where` it stands."""
    try:
        found = json.loads(text)
    except ValueError as fault:
        raise ValueError(f"{where}: no JSON: {fault}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{where}: no JSON object")
    return found
