"""Finds the kinds of monitor by their file names and builds one from its configuration.

Every kind's file holds `Spec`, a model of its configuration, and `make`, which builds it. Kinds are
imported when first asked for. This file does not know any of them, nor who asks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from engines.base import Engine
from monitors.core.base import Monitor
from monitors.core.protected import Protected
from monitors.core.spec import MonitorSpec as MonitorSpec

HERE = Path(__file__).parent.parent
Same = Callable[[str, str], bool]
"""Whether an answer's text (first) says what was expected (second)."""


def plainly_same(answer: str, expected: str) -> bool:
    """Equality of the stripped texts, where nobody gave a canonical form."""
    return answer.strip() == expected.strip()


@dataclass(frozen=True)
class Parts:
    """What a monitor may be built of: engines that serve it and monitors that were built before.

    `same` compares answers in canonical form.
    """

    engines: Mapping[str, Engine] = field(default_factory=dict)
    monitors: Mapping[str, Monitor] = field(default_factory=dict)
    same: Same = plainly_same


NOTHING = Parts()


def kinds() -> list[str]:
    """The kinds of monitor there are, sorted."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem != "__init__")


def parse(spec: Mapping[str, Any]) -> MonitorSpec:
    """The checked configuration. Raises ValueError (pydantic's, with the key) for a fault."""
    parsed: MonitorSpec = _kind(spec).Spec.model_validate(dict(spec))
    return parsed


def build(name: str, spec: Mapping[str, Any], parts: Parts = NOTHING) -> Protected:
    """The monitor `name` as configured; it loads nothing before `start`.

    Raises ValueError for a faulty configuration.
    """
    parsed = parse(spec)
    monitor: Monitor = _kind(spec).make(name, parsed, parts)
    return Protected(monitor, parsed)


def _kind(spec: Mapping[str, Any]) -> Any:
    kind = spec.get("kind")
    if kind not in kinds():
        raise ValueError(f"kind: there is no kind of monitor {kind!r}; there are {kinds()}")
    return import_module(f"monitors.{kind}")
