"""`satisfice check`: every fault of a configuration with its line and key; starts nothing."""

from pathlib import Path
from typing import Any

from server.settings.fault import Fault
from server.settings.reading import inspected
from server.settings.spec import Settings

__all__ = ["Fault", "faults", "json_schema"]


def faults(path: str | Path) -> list[Fault]:
    """All that is wrong with the file, in the order of its lines; [] if it can be served."""
    return inspected(Path(path))[1]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the configuration, for editors."""
    schema = Settings.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
