"""The strategies, found by their file names: decoders/NAME.py registers the strategy NAME."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from decoders.core.base import Decoder, RequestError

HOME = Path(__file__).resolve().parent.parent


@cache
def names() -> tuple[str, ...]:
    """Every strategy's name, `plain` first."""
    found = (path.stem for path in HOME.glob("*.py") if path.stem != "__init__")
    return tuple(sorted(found, key=lambda name: (name != "plain", name)))


@cache
def _load(name: str) -> Decoder:
    module = import_module(f"decoders.{name}")
    found: Decoder = getattr(module, name)
    if found.name != name:
        raise ImportError(f"decoders/{name}.py registers {found.name!r}")
    return found


def find(name: str, where: str = "decoding.strategy") -> Decoder:
    """The strategy `name`; raises `RequestError` with the param `where` if there is none."""
    if name not in names():
        known = ", ".join(names())
        raise RequestError(
            f"unknown strategy {name!r}; known: {known}", where, "strategy_not_found"
        )
    return _load(name)


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a strategy's parameters."""
    return find(name).options.model_json_schema()
