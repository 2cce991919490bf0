"""A request's strategy and parameters: model id, default and body, merged in order."""

from collections.abc import Mapping
from typing import Any

import pytest

from server.choice import Choice, merge

DEFAULT = Choice("safe", {"a": 1, "b": 1})
PRESET = Choice("vote", {"paths": 8, "x": 1}, "vote-8")


@pytest.mark.parametrize(
    ("base", "body", "strategy", "params"),
    [
        (DEFAULT, None, "safe", {"a": 1, "b": 1}),
        (DEFAULT, {"params": {"b": 2}}, "safe", {"a": 1, "b": 2}),
        (DEFAULT, "safe", "safe", {"a": 1, "b": 1}),
        (DEFAULT, "plain", "plain", {}),
        (PRESET, None, "vote", {"paths": 8, "x": 1}),
        (PRESET, {"params": {"paths": 2}}, "vote", {"paths": 2, "x": 1}),
        (PRESET, {"strategy": "vote", "params": {"x": 3}}, "vote", {"paths": 8, "x": 3}),
        (PRESET, {"strategy": "plain", "params": {"y": 1}}, "plain", {"y": 1}),
        (PRESET, {"strategy": "safe", "params": {"a": 5}}, "safe", {"a": 5, "b": 1}),
        (PRESET, {"budget": {}, "params": None}, "vote", {"paths": 8, "x": 1}),
    ],
)
def test_the_body_beats_the_id_field_by_field(
    base: Choice, body: str | Mapping[str, Any] | None, strategy: str, params: dict[str, Any]
) -> None:
    chosen = merge(base, DEFAULT, body)
    assert (chosen.strategy, chosen.params) == (strategy, params)
    assert DEFAULT.params == {"a": 1, "b": 1}
    assert PRESET.params == {"paths": 8, "x": 1}


@pytest.mark.parametrize(
    ("body", "preset", "named", "altered"),
    [
        (None, "vote-8", False, False),
        ("vote", "vote-8", True, False),
        ({"params": {"x": 2}}, "vote-8", False, True),
        ("plain", None, True, False),
    ],
)
def test_where_it_came_from_is_kept(
    body: str | Mapping[str, Any] | None, preset: str | None, named: bool, altered: bool
) -> None:
    chosen = merge(PRESET, DEFAULT, body)
    assert (chosen.preset, chosen.named, chosen.altered) == (preset, named, altered)
