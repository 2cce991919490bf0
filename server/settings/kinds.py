"""The kinds of engine and monitor there are, and the keys that each takes.

A kind is a module with a `Spec`; it is imported when a configuration names it. Nothing is built.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ValidationError

from engines import registry as engines
from engines.base import Capability, Engine
from monitors.core import registry as monitors
from server.settings.spec import EngineSpec


def engine_spec(kind: str) -> type[BaseModel] | None:
    """The model of an engine kind's keys; None if it does not say.

    A kind that is a package keeps it in a `spec` of its own, which loads without the engine.
    """
    module = engines.KINDS[kind]
    apart = f"{module.rpartition('.')[0]}.spec"
    return _spec(apart if find_spec(apart) else module)


def monitor_spec(kind: str) -> type[BaseModel] | None:
    """The model of a monitor kind's keys."""
    return _spec(f"monitors.{kind}")


def engine_kinds() -> list[str]:
    """Names of the kinds of engine."""
    return engines.kinds()


def monitor_kinds() -> list[str]:
    """Names of the kinds of monitor."""
    return monitors.kinds()


def build_engine(name: str, spec: EngineSpec) -> Engine:
    """The engine as configured; it loads nothing before `start`. Raises ValueError."""
    return engines.build(name, taken(engine_spec(spec.kind), spec.own()))


def pools(spec: EngineSpec) -> bool:
    """Whether the engine only classifies, for monitors, and so is no model's; False if unfit."""
    return bool(getattr(_made(spec), "pools", False))


def capabilities(spec: EngineSpec) -> frozenset[Capability] | None:
    """What a model's engine can do; None if its kind does not say or it is no model's or unfit."""
    made = _made(spec)
    if getattr(made, "pools", False):
        return None
    found: frozenset[Capability] | None = getattr(made, "capabilities", None)
    return found


def _made(spec: EngineSpec) -> BaseModel | None:
    """The kind's own configuration; None if it is unfit."""
    model = engine_spec(spec.kind) if spec.kind in engine_kinds() else None
    if model is None:
        return None
    try:
        return model.model_validate(taken(model, spec.own()))
    except ValidationError:
        return None


def taken(spec: type[BaseModel] | None, own: Mapping[str, Any]) -> dict[str, Any]:
    """A kind's configuration as its `Spec` takes it: `lazy` only where it knows it."""
    names = spec.model_fields if spec else {}
    return {key: v for key, v in own.items() if key in names or key != "lazy"}


def _spec(module: str) -> type[BaseModel] | None:
    found = getattr(import_module(module), "Spec", None)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None
