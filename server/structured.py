"""The grammar that a request asks for, under any of its names.

It does not know what enforces it.
"""

import json
from collections.abc import Iterator
from typing import Any

from decoders.core.base import RequestError
from engines.base import Structured, StructuredKind
from server.bodies import Sampled
from server.excess import Size, check_regex, check_rules

JSON, OBJECT = StructuredKind.JSON_SCHEMA, StructuredKind.JSON_OBJECT
REGEX, CHOICE, GRAMMAR = StructuredKind.REGEX, StructuredKind.CHOICE, StructuredKind.GRAMMAR

Found = tuple[str, Structured]


def grammar(body: Sampled) -> Found | None:
    """The one grammar asked for, with the path of its field; `RequestError` if there are more."""
    found = [*_of_format(body), *_of_outputs(body), *_of_guided(body)]
    if len(found) > 1:
        raise RequestError(f"{found[0][0]} and {found[1][0]} exclude each other", found[1][0])
    for param, structured in found:
        check(structured, param)
    return found[0] if found else None


def _of_format(body: Sampled) -> Iterator[Found]:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return
    if wanted.json_schema is None or wanted.json_schema.schema_ is None:
        yield "response_format", Structured(OBJECT)
    else:
        path = "response_format.json_schema.schema"
        yield path, Structured(JSON, wanted.json_schema.schema_)


def _of_outputs(body: Sampled) -> Iterator[Found]:
    wanted = body.structured_outputs
    if wanted is None:
        return
    values = {JSON: wanted.json_, REGEX: wanted.regex, CHOICE: wanted.choice}
    names = {JSON: "json", REGEX: "regex", CHOICE: "choice", GRAMMAR: "grammar"}
    for kind, value in {**values, GRAMMAR: wanted.grammar}.items():
        if value is not None:
            path = f"structured_outputs.{names[kind]}"
            yield path, Structured(kind, _schema(value, path) if kind is JSON else value)
    if wanted.json_object:
        yield "structured_outputs.json_object", Structured(OBJECT)


def _of_guided(body: Sampled) -> Iterator[Found]:
    if body.guided_json is not None:
        yield "guided_json", Structured(JSON, _schema(body.guided_json, "guided_json"))
    values = {REGEX: body.guided_regex, CHOICE: body.guided_choice, GRAMMAR: body.guided_grammar}
    for kind, value in values.items():
        if value is not None:
            yield f"guided_{kind.value}", Structured(kind, value)


def _schema(value: Any, param: str) -> Any:
    """vLLM takes a schema as text as well."""
    if not isinstance(value, str):
        return value
    try:
        schema = json.loads(value)
    except (ValueError, RecursionError) as fault:
        raise RequestError(f"{param}: no JSON: {fault}", param, "invalid_value") from None
    if not isinstance(schema, dict):
        raise RequestError(f"{param}: must be a JSON object", param, "invalid_value")
    return schema


def check(structured: Structured, param: str) -> None:
    """Raises `RequestError` for a grammar that is none or that a compiler should not be given.

    A large schema takes a second, so it is best called in a thread.
    """
    match structured.kind:
        case StructuredKind.JSON_SCHEMA:
            check_schema(structured.value, param)
        case StructuredKind.REGEX:
            check_regex(structured.value, param)
        case StructuredKind.GRAMMAR:
            check_rules(structured.value, param)
        case StructuredKind.CHOICE:
            Size(param).add(structured.value)
        case StructuredKind.JSON_OBJECT:
            pass


def check_schema(schema: Any, param: str) -> None:
    """Raises `RequestError` for what is no JSON Schema or refers to something outside itself."""
    from jsonschema import Draft202012Validator, SchemaError

    Size(param).add(schema)
    try:
        Draft202012Validator.check_schema(schema)
        outside = next(_outside(schema), None)
    except SchemaError as fault:
        message = f"{param}: no valid JSON Schema: {fault.message[:200]}"
        raise RequestError(message, param, "invalid_value") from None
    except RecursionError:
        raise RequestError(f"{param}: nested too deeply", param, "invalid_value") from None
    if outside is not None:
        message = f"{param}: nothing outside the schema is fetched: {outside[:100]!r}"
        raise RequestError(message, param, "invalid_value")


def _outside(schema: Any) -> Iterator[str]:
    """References that do not begin with `#`."""
    stack = [schema]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            target = one.get("$ref", one.get("$dynamicRef"))
            if isinstance(target, str) and not target.startswith("#"):
                yield target
            stack.extend(one.values())
        elif isinstance(one, list):
            stack.extend(one)
