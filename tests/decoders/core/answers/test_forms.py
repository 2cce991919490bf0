"""Choice letters, JSON values and plain text in canonical form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.core.answers.forms import choice_key, json_key, last_json, text_key

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "(B)",
        "B.",
        "B)",
        "B:",
        "[B]",
        "(b)",
        "b)",
        "**B**",
        "$B$",
        r"\text{B}",
        r"\text{(B)}",
        "option B",
        "Choice (B)",
        "B) Paris",
        "(B) 12 km",
        "B. Paris, the city",
        "**B**",
        "B: Paris",
    ],
)
def test_every_spelling_of_a_choice(text: str) -> None:
    assert choice_key(text) == "B"


@pytest.mark.parametrize(
    "text", ["b", "a dog", "A dog", "(A), (C)", "A, C", "(A) and (C)", "K", "AB", ""]
)
def test_what_is_no_single_choice(text: str) -> None:
    assert choice_key(text) is None


@given(VALUES.filter(lambda value: isinstance(value, dict | list)))
def test_json_is_the_same_in_any_layout(value: object) -> None:
    key = json_key(json.dumps(value))
    assert key is not None
    assert key == json_key(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))
    assert json.loads(key) == value


def test_json_numbers_are_compared_by_value_and_types_are_kept() -> None:
    assert json_key('{"a": 1.0, "b": 1e2}') == json_key('{"b": 100, "a": 1}')
    assert json_key("[0.75]") == json_key("[7.5e-1]")
    different = ["[1]", '["1"]', "[true]", '["true"]', "[null]", "[[1]]", "[-1]", "[3/4]"]
    assert len({json_key(text) for text in different}) == len(different)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        '"a"',
        "{",
        "{'a': 1}",
        "[NaN]",
        "[Infinity]",
        "[1e999999999]",
        "[1] x",
        "[" * 90_000,
    ],
)
def test_what_is_no_json_value(text: str) -> None:
    assert json_key(text) is None


def test_the_last_json_object_is_found() -> None:
    text = 'say {"a": 1}, {broken {"b": {"c": 2}} and {'
    span = last_json(text)
    assert span is not None
    assert text[slice(*span)] == '{"b": {"c": 2}}'


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("The Eiffel  Tower.", "eiffel tower"),
        ("**Paris**", '"PARIS"'),
        ("$x^2 + 1$", "x^2+1"),
        (r"\dfrac{\pi}{2}", r"\frac{ \pi }{2}"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"\text{odd}", "odd"),
    ],
)
def test_equal_texts(left: str, right: str) -> None:
    assert text_key(left) == text_key(right) is not None


@pytest.mark.parametrize("text", ["", "...", "**", "$ $", "{a"])
def test_text_without_content_is_none(text: str) -> None:
    assert text_key(text) is None
