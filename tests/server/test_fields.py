"""The table of fields is complete, agrees with the bodies, and is what the documentation says."""

import ast
import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from decoders.core.base import Field, RequestError
from decoders.core.registry import find, names
from server.bodies import ChatBody, Sampled, TextBody
from server.fields import BY_STRATEGY, TABLE, Effect, Endpoint, honoured, markdown, of

ROOT = Path(__file__).resolve().parents[2]
BODIES: list[tuple[Endpoint, type[Sampled]]] = [
    (Endpoint.CHAT, ChatBody),
    (Endpoint.TEXT, TextBody),
]


@pytest.mark.parametrize(("endpoint", "body"), BODIES)
def test_what_is_honoured_is_what_the_body_has(endpoint: Endpoint, body: type[Sampled]) -> None:
    rows = of(endpoint).values()
    assert {row.name for row in rows if row.effect is Effect.HONOURED} == set(body.model_fields)


def test_what_not_every_strategy_honours_is_listed_with_those_that_do() -> None:
    listed = markdown().partition("## By strategy")[2]
    assert set(BY_STRATEGY) == set(Field)
    for field, written in BY_STRATEGY.items():
        line = next(line for line in listed.splitlines() if line.startswith(f"| {written} |"))
        for name in names():
            assert (f"`{name}`" in line) == (field in find(name).honours)


def test_no_field_stands_twice() -> None:
    for endpoint in Endpoint:
        assert len(of(endpoint)) == sum(endpoint in row.endpoints for row in TABLE)


def test_the_documentation_is_the_table() -> None:
    assert (ROOT / "docs" / "api-fields.md").read_text("utf-8") == markdown(), (
        "make it again: scripts/docs"
    )


def test_every_openai_field_stands_in_it() -> None:
    folder = os.environ.get("SATISFICE_DATA")
    if folder is None:
        pytest.skip("SATISFICE_DATA is not set: no OpenAI schemas to compare with")
    document = json.loads((Path(folder) / "openai_api" / "openapi_core.json").read_text("utf-8"))
    schemas = document["components"]["schemas"]
    for endpoint, name in (
        (Endpoint.CHAT, "CreateChatCompletionRequest"),
        (Endpoint.TEXT, "CreateCompletionRequest"),
    ):
        assert _properties(schemas, schemas[name]) <= set(of(endpoint))


def _properties(schemas: dict[str, dict[str, object]], schema: object) -> set[str]:
    """All property names, through references and allOf."""
    if not isinstance(schema, dict):
        return set()
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _properties(schemas, schemas[reference.rsplit("/", 1)[1]])
    parts = [_properties(schemas, part) for part in schema.get("allOf", [])]
    return set(schema.get("properties", {})).union(*parts)


@pytest.mark.parametrize(
    ("endpoint", "module", "name"),
    [
        (Endpoint.CHAT, "chat_completion", "ChatCompletionRequest"),
        (Endpoint.TEXT, "completion", "CompletionRequest"),
    ],
)
def test_every_vllm_field_stands_in_it(endpoint: Endpoint, module: str, name: str) -> None:
    """Read from the installed source: importing it takes seconds."""
    found = find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("vllm is not installed")
    home = Path(found.submodule_search_locations[0])
    path = home / "entrypoints" / "openai" / module / "protocol.py"
    body = next(
        node
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    names = {
        node.target.id
        for node in body.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert {one for one in names if not one.startswith("_")} <= set(of(endpoint))


def test_a_refused_field_may_be_null_or_ask_for_nothing() -> None:
    for endpoint in Endpoint:
        for row in of(endpoint).values():
            if row.effect is not Effect.REFUSED:
                continue
            for value in (None, *row.harmless):
                assert honoured(endpoint, {row.name: value}) == {}
            with pytest.raises(RequestError) as caught:
                honoured(endpoint, {row.name: {"some": "thing"}})
            assert caught.value.param == row.name


def test_true_is_no_number() -> None:
    with pytest.raises(RequestError):
        honoured(Endpoint.TEXT, {"best_of": True})


def test_an_ignored_field_takes_anything() -> None:
    for endpoint in Endpoint:
        for row in of(endpoint).values():
            if row.effect is Effect.IGNORED:
                assert honoured(endpoint, {row.name: [1, {"x": None}]}) == {}
