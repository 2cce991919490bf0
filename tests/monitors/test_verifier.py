"""Verifiers: what passes, and that a client's check cannot hang the process."""

import asyncio
import json
import time
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from monitors.core.base import MonitorError, Stage
from monitors.verifier import Verifier, VerifierSpec, from_spec

ADAPTER: TypeAdapter[Any] = TypeAdapter(VerifierSpec)


def verifier(**spec: Any) -> Verifier:
    return from_spec(ADAPTER.validate_python(spec))


async def value(check: Verifier, text: str) -> float:
    return (await check.score([], ["thought", text], Stage.ANSWER)).value


async def test_exact_compares_by_what_it_was_given() -> None:
    spec = ADAPTER.validate_python({"kind": "exact", "answer": "1000"})
    assert await value(from_spec(spec), " 1000 ") == 1.0
    assert await value(from_spec(spec), "1,000") == 0.0
    assert await value(from_spec(spec, lambda a, b: a.replace(",", "") == b), "1,000") == 1.0


async def test_regex_searches_the_last_step_only() -> None:
    check = verifier(kind="regex", pattern=r"^\d+$")
    assert await value(check, "42") == 1.0
    assert await value(check, "thought 42") == 0.0
    score = await check.score([], ["42", "none"], Stage.ANSWER)
    assert (score.value, score.label) == (0.0, "fail")


async def test_a_hostile_pattern_ends_and_lets_the_loop_run() -> None:
    check = verifier(kind="regex", pattern=r"^(\w|\w\w)+\d$")
    started = time.perf_counter()
    hostile = asyncio.create_task(value(check, "a" * 5000 + "!"))
    ticks = 0
    while not hostile.done():
        await asyncio.sleep(0.01)
        ticks += 1
    with pytest.raises(MonitorError, match="longer than"):
        await hostile
    assert time.perf_counter() - started < 5
    assert ticks > 10


@pytest.mark.parametrize(
    ("schema", "text", "passes"),
    [
        ({"type": "integer"}, " 42\n", True),
        ({"type": "integer"}, "42 ", True),
        ({"type": "integer"}, "the answer is 42", False),
        ({"type": "number"}, "NaN", False),
        ({"type": "string", "pattern": "^a+$"}, '"aaa"', True),
        ({"type": "string", "pattern": "^a+$"}, '"ab"', False),
        ({"uniqueItems": True}, "[1, 1.0]", False),
        ({"uniqueItems": True}, "[1, true, {}, []]", True),
        ({"$defs": {"n": {"type": "null"}}, "$ref": "#/$defs/n"}, "null", True),
        (
            {"properties": {"a": {"const": 1}}, "additionalProperties": False},
            '{"a": 1, "b": 2}',
            False,
        ),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "minimum": 3}, "2", False),
    ],
)
async def test_json_schema(schema: dict[str, Any], text: str, passes: bool) -> None:
    assert await value(verifier(kind="json_schema", schema=schema), text) == float(passes)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"kind": "regex", "pattern": "("}, "not a regular expression"),
        ({"kind": "regex", "pattern": "a" * 1001}, "1000"),
        ({"kind": "json_schema", "schema": {"type": "nothing"}}, "not a JSON Schema"),
        ({"kind": "json_schema", "schema": {"$ref": "http://127.0.0.1:9/x"}}, "may only point"),
        ({"kind": "json_schema", "schema": {"items": {"$ref": "file:///etc/passwd"}}}, "may only"),
        ({"kind": "json_schema", "schema": {"patternProperties": {"(a+)+$": {}}}}, "not support"),
        ({"kind": "json_schema", "schema": {"items": {"$schema": "x"}}}, "only JSON Schema"),
        ({"kind": "json_schema", "schema": {"pattern": "("}}, "not a regular expression"),
        ({"kind": "json_schema", "schema": {"title": "a" * 70_000}}, "at most 65536"),
        ({"kind": "exact", "answer": "1", "extra": 2}, "extra"),
        ({"kind": "oracle"}, "oracle"),
    ],
)
def test_a_faulty_check_is_refused(spec: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ADAPTER.validate_python(spec)


def test_a_deep_schema_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"items": deep}
    with pytest.raises(ValidationError, match="32 levels"):
        verifier(kind="json_schema", schema=deep)


def doubling(levels: int) -> dict[str, Any]:
    """A small schema whose naive evaluation takes 2^levels steps."""
    defs: dict[str, Any] = {
        f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {}}}


@pytest.mark.parametrize("schema", [doubling(25), {"$ref": "#"}, {"allOf": [{"$ref": "#"}] * 2}])
async def test_a_costly_schema_ends(schema: dict[str, Any]) -> None:
    started = time.perf_counter()
    with pytest.raises(MonitorError, match=r"checks|without an end"):
        await value(verifier(kind="json_schema", schema=schema), "1")
    assert time.perf_counter() - started < 5


async def test_many_items_are_compared_in_time() -> None:
    check = verifier(kind="json_schema", schema={"uniqueItems": True})
    text = json.dumps([{"a": i} for i in range(5000)])
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        assert await value(check, text) == 1.0
        taken.append(time.perf_counter() - started)
    assert min(taken) < 2


async def test_a_text_beyond_the_limit_is_an_error_not_a_verdict() -> None:
    for check in (verifier(kind="regex", pattern="a"), verifier(kind="json_schema", schema=True)):
        with pytest.raises(MonitorError, match="65536"):
            await value(check, "a" * 70_000)


def test_a_spec_survives_its_own_dump() -> None:
    spec = ADAPTER.validate_python({"kind": "json_schema", "schema": {"type": "null"}})
    assert ADAPTER.validate_python(ADAPTER.dump_python(spec)) == spec
