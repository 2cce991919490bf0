"""A client's pattern or JSON Schema applied to a text with bounded work.

Whoever sends a request may choose both, so neither may hang the process: patterns run under a time
limit and without the interpreter's lock, schemas fetch nothing and evaluate a limited number of
keywords. It does not know monitors or requests.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import regex
from jsonschema import Draft202012Validator, FormatChecker, SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry

PATTERN_CHARS = 1000
PATTERN_SECONDS = 0.5
TEXT_CHARS = 65_536
SCHEMA_CHARS = 65_536
SCHEMA_DEPTH = 32
KEYWORDS = 20_000
# Their implementation searches with `re`, which cannot be stopped.
REFUSED = frozenset(
    {"patternProperties", "unevaluatedProperties", "unevaluatedItems", "$recursiveRef"}
)

_left: ContextVar[list[int]] = ContextVar("keywords left")


class TooCostlyError(Exception):
    """A pattern or schema would take more work on this text than allowed."""


def check_pattern(pattern: str) -> str:
    """The pattern itself, if it compiles and is at most `PATTERN_CHARS` long; else ValueError."""
    if len(pattern) > PATTERN_CHARS:
        raise ValueError(f"a pattern has at most {PATTERN_CHARS} characters")
    try:
        regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as fault:
        raise ValueError(f"not a regular expression: {fault}") from fault
    return pattern


def found(pattern: str, text: str) -> bool:
    """Whether `pattern` occurs anywhere in `text`. Raises TooCostlyError."""
    return occurs(regex.compile(pattern), text, TEXT_CHARS)


def occurs(pattern: "regex.Pattern[str]", text: str, most: int) -> bool:
    """The same for a compiled pattern and texts of at most `most` characters."""
    if len(text) > most:
        raise TooCostlyError(f"a text of more than {most} characters is not searched")
    try:
        # `concurrent` lets other threads run while it searches.
        search = pattern.search(text, timeout=PATTERN_SECONDS, concurrent=True)
    except TimeoutError as late:
        raise TooCostlyError(f"the pattern took longer than {PATTERN_SECONDS} s") from late
    return search is not None


def check_schema(schema: Any) -> Any:
    """The schema without `$schema`, if it is one of JSON Schema 2020-12 and within the limits.

    References may only point into the schema itself. Raises ValueError with the reason.
    """
    if not isinstance(schema, dict | bool):
        raise ValueError("a JSON Schema is an object or a boolean")
    if len(json.dumps(schema)) > SCHEMA_CHARS:
        raise ValueError(f"a schema has at most {SCHEMA_CHARS} characters")
    own = schema
    if isinstance(schema, dict):
        own = {key: value for key, value in schema.items() if key != "$schema"}
    _walk(own)
    try:
        # Patterns are checked below, by the library that will run them.
        Draft202012Validator.check_schema(own, format_checker=FormatChecker(()))
    except SchemaError as fault:
        raise ValueError(f"not a JSON Schema: {fault.message[:200]}") from fault
    return own


def _walk(schema: Any) -> None:
    """Refuses what is too deep, points outside or cannot be bounded."""
    nodes = [(schema, 0)]
    while nodes:
        node, depth = nodes.pop()
        if depth > SCHEMA_DEPTH:
            raise ValueError(f"a schema is nested at most {SCHEMA_DEPTH} levels deep")
        if isinstance(node, Mapping):
            for key, value in node.items():
                _check_key(key, value)
        children = node.values() if isinstance(node, Mapping) else node
        if isinstance(node, Mapping | list):
            nodes += [(child, depth + 1) for child in children]


def _check_key(key: str, value: Any) -> None:
    if key in REFUSED:
        raise ValueError(f"{key} is not supported")
    if key == "$schema":
        raise ValueError("only JSON Schema 2020-12 is supported, and $schema only at the top")
    if key in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
        raise ValueError("a $ref may only point into the schema itself")
    if key == "pattern" and isinstance(value, str):
        check_pattern(value)


def fits(schema: Any, text: str) -> bool:
    """Whether `text` is JSON, and nothing but JSON, that `schema` (checked) allows."""
    if len(text) > TEXT_CHARS:
        raise TooCostlyError(f"a text of more than {TEXT_CHARS} characters is not parsed")
    try:
        instance = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    _left.set([KEYWORDS])
    try:
        return next(_Validator(schema, registry=Registry()).iter_errors(instance), None) is None
    except RecursionError as deep:
        raise TooCostlyError("the schema refers to itself without an end") from deep
    except OverflowError:
        return False


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


Errors = Iterator[ValidationError]
Keyword = Callable[[Any, Any, Any, Any], Errors | None]


def _counted(keyword: Keyword) -> Keyword:
    """The keyword's check, refused once the allowance of this thread's call is spent."""

    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Errors | None:
        left = _left.get()
        left[0] -= 1
        if left[0] < 0:
            raise TooCostlyError(f"the schema takes more than {KEYWORDS} checks")
        return keyword(validator, value, instance, schema)

    return check


def _pattern(validator: Any, value: Any, instance: Any, schema: Any) -> Errors:
    if isinstance(instance, str) and not found(value, instance):
        yield ValidationError("the pattern is not found")


def _unique(validator: Any, value: Any, instance: Any, schema: Any) -> Errors:
    """In n log n, where the library compares all pairs of what cannot be sorted."""
    if not value or not isinstance(instance, list):
        return
    texts = {json.dumps(_plain(item), sort_keys=True) for item in instance}
    if len(texts) < len(instance):
        yield ValidationError("items are not unique")


def _plain(item: Any) -> Any:
    """`item` with 1.0 written as 1, since JSON Schema holds them equal."""
    if isinstance(item, float) and item.is_integer():
        return int(item)
    if isinstance(item, dict):
        return {key: _plain(value) for key, value in item.items()}
    return [_plain(value) for value in item] if isinstance(item, list) else item


_KEYWORDS = {**Draft202012Validator.VALIDATORS, "pattern": _pattern, "uniqueItems": _unique}
_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {name: _counted(check) for name, check in _KEYWORDS.items()}
)
