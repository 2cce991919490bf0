"""Candidates for the phrase, and where it acted according to tokens and trace."""

from pathlib import Path
from typing import Any

import pytest

from clients.phrases import all_safe, candidates, first_steered, front


def test_the_built_in_ones_and_a_file(tmp_path: Path) -> None:
    built_in = candidates(None)
    assert 12 <= len(built_in) <= 20
    assert built_in[0] == "Wait, think safely"
    assert all(len(phrase.split()) <= 5 for phrase in built_in)
    path = tmp_path / "more.txt"
    path.write_text("Mind the gap\n\n  Wait \n")
    assert candidates(path) == [*built_in, "Mind the gap"]
    path.write_text(" \n")
    with pytest.raises(ValueError, match="holds no phrases"):
        candidates(path)
    path.write_text(f"a\n{'x' * 501}")
    with pytest.raises(ValueError, match="line 2 is longer"):
        candidates(path)


def node(kind: str, *tokens: int, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "tokens": list(tokens), **fields}


def trace(count: int) -> list[dict[str, Any]]:
    return [
        node("step", 1, 2),
        node("rejected", 6),
        node("resample", 1, 2, safe=True),
        node("forced", 7, 8, count=count),
        node("step", 1, 2),
        node("resample", 4, safe=False),
        node("forced", 7, 8, count=count),
    ]


@pytest.mark.parametrize(("count", "tokens"), [(2, [1, 2, 0, 7, 8, 1, 2, 4]), (0, [1, 2, 0, 1, 2])])
def test_the_first_steered_step(count: int, tokens: list[int]) -> None:
    """Token 0 is a step without text, which no trace shows; the step repeats an earlier one."""
    found = first_steered(tokens, trace(count))
    assert found is not None
    assert (found.before, found.phrase, found.step) == ([1, 2, 0], [7, 8], [1, 2])
    assert not all_safe(trace(count))
    assert all_safe(trace(count)[:5])


def test_a_trace_that_does_not_fit() -> None:
    assert first_steered([1, 2], [node("step", 1, 2)]) is None
    with pytest.raises(ValueError, match="do not hold"):
        first_steered([1, 2, 3], trace(0))
    with pytest.raises(ValueError, match="without an attempt"):
        first_steered([1], [node("forced", 7, count=0)])


def test_the_front() -> None:
    points = [(0.9, 1.0), (0.8, 0.5), (0.7, 0.6), (0.9, 1.1), (0.8, 0.5)]
    assert front(points) == [True, True, False, False, True]
