"""Grammars that a client may send: what is too much for a compiler is refused before it."""

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.core.base import RequestError
from engines.base import Structured, StructuredKind
from server.excess import MOST_NODES, MOST_UNROLLED, unrolled
from server.structured import check

KIND = StructuredKind


def named(value: Any) -> str | None:
    """Kinds by name; values are too long for names."""
    return value.value if isinstance(value, StructuredKind) else None


def deep(levels: int, form: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"items": schema} if form == "items" else {"properties": {"a": schema}}
    return schema


REFUSED: list[tuple[StructuredKind, Any]] = [
    (KIND.JSON_SCHEMA, {"type": "array", "minItems": 10**9}),
    (KIND.JSON_SCHEMA, {"type": "array", "minItems": 1e9}),
    (KIND.JSON_SCHEMA, {"type": "array", "maxItems": 10**7}),
    (KIND.JSON_SCHEMA, {"type": "array", "minItems": 10**400}),
    (KIND.JSON_SCHEMA, {"type": "array", "contains": {}, "minContains": 10**9}),
    (KIND.JSON_SCHEMA, {"type": "string", "minLength": 10**9}),
    (KIND.JSON_SCHEMA, {"type": "object", "minProperties": 10**9}),
    (KIND.JSON_SCHEMA, {"type": "string", "pattern": "a{100000}"}),
    (KIND.JSON_SCHEMA, {"type": "string", "pattern": "a{10000}"}),
    (KIND.JSON_SCHEMA, {"type": "string", "pattern": "(abcdefghij){900}"}),
    (KIND.JSON_SCHEMA, {"type": "string", "pattern": "ab" * 10_000}),
    (KIND.JSON_SCHEMA, {"patternProperties": {"a{900000000}": {}}}),
    (KIND.JSON_SCHEMA, {"propertyNames": {"pattern": "a{9000}"}}),
    (KIND.JSON_SCHEMA, {"anyOf": [{"pattern": "a{900}"}] * 10}),
    (KIND.JSON_SCHEMA, {"enum": [f"word{i}" for i in range(100_000)]}),
    (KIND.JSON_SCHEMA, {"const": "x" * 1_000_000}),
    (KIND.JSON_SCHEMA, {"properties": {"x" * 1_000_000: {}}}),
    (KIND.JSON_SCHEMA, {"anyOf": [{"const": i} for i in range(MOST_NODES)]}),
    (KIND.JSON_SCHEMA, deep(1_000, "items")),
    (KIND.JSON_SCHEMA, deep(1_000, "properties")),
    (KIND.REGEX, "a{100000}"),
    (KIND.REGEX, "((a{100}){100}){100}"),
    (KIND.REGEX, "a{99999999999999999999}"),
    (KIND.REGEX, "a" * 200_000),
    (KIND.REGEX, "[" * 200_000),
    (KIND.CHOICE, [f"word{i}" for i in range(100_000)]),
    (KIND.CHOICE, ["x" * 1_000_000]),
    (KIND.GRAMMAR, "root ::= a{200}\na ::= b{200}"),
    (KIND.GRAMMAR, 'root ::= "' + "a" * 200_000 + '"'),
]


@pytest.mark.parametrize(("kind", "value"), REFUSED, ids=named)
def test_what_is_too_much_is_refused_at_once(kind: StructuredKind, value: Any) -> None:
    began = time.thread_time()
    with pytest.raises(RequestError) as fault:
        check(Structured(kind, value), "response_format")
    assert fault.value.param == "response_format"
    assert time.thread_time() - began < 2


TAKEN: list[tuple[StructuredKind, Any]] = [
    (KIND.JSON_SCHEMA, {"type": "array", "minItems": 0, "maxItems": 10_000}),
    (KIND.JSON_SCHEMA, {"pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}),
    (KIND.JSON_SCHEMA, {"pattern": r"^[a-z0-9]{1,63}(\.[a-z0-9]{1,9})*$"}),
    (KIND.JSON_SCHEMA, {"properties": {"pattern": {"type": "string"}, "maxItems": {}}}),
    (KIND.JSON_SCHEMA, {"enum": [f"word{i}" for i in range(4_000)]}),
    (KIND.JSON_SCHEMA, {"$ref": "#/$defs/n", "$defs": {"n": {"items": {"$ref": "#/$defs/n"}}}}),
    (KIND.REGEX, "[0-9]{8}-[0-9]{8}-[0-9]{8}-[0-9]{8}-[0-9]{8}-[0-9]{8}"),
    (KIND.REGEX, "(a{20}){400}"),
    (KIND.CHOICE, ["yes", "no"]),
    (KIND.GRAMMAR, 'root ::= "a"{3}'),
    (KIND.JSON_OBJECT, None),
]


@pytest.mark.parametrize(("kind", "value"), TAKEN, ids=named)
def test_what_people_use_is_taken(kind: StructuredKind, value: Any) -> None:
    check(Structured(kind, value), "response_format")


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("", 0), ("abc", 3), ("a{3}", 3), ("a{2,5}b", 6), ("a{7,}", 7), ("(ab){3}", 6),
        ("((a{2}){3}){4}", 24), ("[a-z{9}]{2}", 2), (r"\{9}", 3), (r"\d{4}", 4), ("a{0}", 1),
        ("(a|b){5}", 15), ("(a{9}", 9), ("a)b", 3), ("x{999999999999}", 999999999),
    ],
)  # fmt: skip
def test_a_pattern_s_size_written_out(pattern: str, size: int) -> None:
    assert unrolled(pattern) == size


@given(st.lists(st.tuples(st.sampled_from(["a", "[bc]", "(de)"]), st.integers(1, 9))))
def test_it_is_that_of_the_pattern_without_counts(parts: list[tuple[str, int]]) -> None:
    short = "".join(f"{part}{{{times}}}" for part, times in parts)
    assert unrolled(short) == unrolled("".join(part * times for part, times in parts))


def test_a_size_takes_time_by_length() -> None:
    began = time.thread_time()
    for text in ("(" * 100_000, "[" * 100_000, "a{9}" * 25_000, "\\" * 100_000):
        assert unrolled(text) > MOST_UNROLLED or re.fullmatch(r"[\[\\(]+", text)
    assert time.thread_time() - began < 3
