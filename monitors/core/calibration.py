"""A monitor's calibration as it is stored: one JSON object beside the weights or anywhere else.

It does not know how the figures came about.
"""

import json
from pathlib import Path

from pydantic import TypeAdapter

from monitors.core.base import Calibration

NAME = "calibration.json"


def load(path: Path) -> Calibration:
    """The calibration stored in `path`. Raises ValueError that names the file and the fault."""
    try:
        stored = json.loads(path.read_text("utf-8"), parse_constant=_refuse)
        return TypeAdapter(Calibration).validate_python(stored)
    except (OSError, ValueError) as fault:
        raise ValueError(f"{path} is no calibration: {fault}") from fault


def _refuse(constant: str) -> None:
    """No score is below NaN, so a threshold that is none would let everything pass."""
    raise ValueError(f"{constant} is no number")


def beside(model: Path, named: Path | None) -> Calibration | None:
    """The calibration that was named, else the one that lies in the model's folder, else none."""
    if named is not None:
        return load(named)
    path = model / NAME
    return load(path) if path.is_file() else None
