"""Monitors made of others: their order, and what cannot be built."""

import itertools

import pytest

from monitors.core.order import cycle, members, ordered


def test_each_comes_after_what_it_needs() -> None:
    found = ordered({"both": ["deep", "a"], "a": [], "deep": ["a", "b"], "b": []})
    assert sorted(found) == ["a", "b", "both", "deep"]
    assert found.index("both") > found.index("deep") > max(found.index("a"), found.index("b"))


def test_an_unknown_member_is_named_with_its_key() -> None:
    with pytest.raises(ValueError, match=r"monitors\.both\.members: there is no monitor 'c'"):
        ordered({"both": ["a", "c"], "a": []})


def test_a_cycle_is_named_with_its_key() -> None:
    wanted = {"x": [], "a": ["b"], "b": ["x", "c"], "c": ["a"]}
    with pytest.raises(ValueError, match=r"monitors\.\w\.members: made of itself"):
        ordered(wanted)
    path = cycle(wanted)
    assert path[0] == path[-1]
    assert all(after in wanted[before] for before, after in itertools.pairwise(path))
    with pytest.raises(ValueError, match="a -> a"):
        ordered({"a": ["a"]})


def test_members_are_names_in_a_list_or_with_weights() -> None:
    assert members({"members": ["a", "b"]}) == ["a", "b"]
    assert members({"members": {"a": 0.5}}) == ["a"]
    assert members({}) == members({"members": "a"}) == []
