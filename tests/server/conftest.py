"""Servers of table engines: exact, instant, and able to fail when asked."""

from collections.abc import Callable
from typing import Any

import pytest

from server.fleet import Fleet
from server.settings import Settings

PRESETS = {"vote-4": {"strategy": "parallel_thinking", "params": {"paths": 4}}}


@pytest.fixture
def settings() -> Settings:
    """Two engines, the second lazy; one monitor; two models, one with markers and a preset."""
    return Settings.model_validate(
        {
            "engines": {"a": {"kind": "table"}, "b": {"kind": "table", "seed": 1, "lazy": True}},
            "monitors": {"seven": {"kind": "verifier", "check": {"kind": "exact", "answer": "7"}}},
            "models": {
                "mini": {"engine": "a", "think": ["<think>", "</think>"], "presets": PRESETS},
                "org/slow@v1": {"engine": "b", "default": {"strategy": "best_of_n"}},
            },
        }
    )


@pytest.fixture
def fleet_of() -> Callable[..., Fleet]:
    """A fleet of given settings whose watcher looks every 10 ms."""

    def make(settings: Settings, **parts: Any) -> Fleet:
        return Fleet(settings, every=0.01, **parts)

    return make
