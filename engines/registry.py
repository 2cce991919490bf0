"""Finds the kinds of engine by name and builds one from its configuration.

A kind is imported when it is first asked for, so a server without vLLM never loads it. This file
knows where kinds live and nothing about them.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from engines.base import Engine

KINDS = {
    "vllm": "engines.vllm.engine",
    "ensemble": "engines.vllm.ensemble.engine",
    "reference_ensemble": "engines.reference_ensemble",
    "reference": "engines.reference",
    "remote": "engines.remote",
    "table": "engines.table",
    "diffusion": "engines.diffusion.engine",
}


def kinds() -> list[str]:
    """The kinds of engine there are, sorted."""
    return sorted(KINDS)


def build(name: str, spec: Mapping[str, Any]) -> Engine:
    """The engine `name` as configured; it loads nothing before `start`.

    Raises ValueError that names the key for a faulty configuration.
    """
    kind = spec.get("kind")
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is no kind of engine; known: {', '.join(kinds())}")
    engine: Engine = import_module(KINDS[kind]).build(name, spec)
    return engine
