"""Answers fit OpenAI's published schemas, and our own OpenAPI document tells the truth."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.server.api.live import Live, chunks, fault, user

MORE: list[dict[str, Any]] = [
    {},
    {"logprobs": True, "top_logprobs": 2, "n": 2, "temperature": 1, "seed": 1},
    {"decoding": {"strategy": "parallel_thinking", "trace": "full"}},
    {"messages": [user("phone")], "tools": [{"type": "function", "function": {"name": "add"}}]},
]


def published(name: str) -> Draft202012Validator:
    """OpenAI's schema `name`."""
    folder = os.environ.get("SATISFICE_DATA")
    if folder is None:
        pytest.skip("SATISFICE_DATA is not set: no OpenAI schemas to validate against")
    document = json.loads((Path(folder) / "openai_api" / "openapi_core.json").read_text("utf-8"))
    return validator(nullable(document), name)


def nullable(schema: Any) -> Any:
    """The schemas with `nullable`, which is OpenAPI 3.0's, said in JSON Schema's way."""
    if isinstance(schema, list):
        return [nullable(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    said = {name: nullable(one) for name, one in schema.items() if name != "nullable"}
    return {"anyOf": [said, {"type": "null"}]} if schema.get("nullable") is True else said


def validator(document: dict[str, Any], name: str) -> Draft202012Validator:
    root = {"components": document["components"], "$ref": f"#/components/schemas/{name}"}
    return Draft202012Validator(root)


def valid(schema: Draft202012Validator, value: Any) -> None:
    faults = [f"{'.'.join(map(str, e.path))}: {e.message[:300]}" for e in schema.iter_errors(value)]
    assert faults == []


@pytest.mark.parametrize("fields", MORE, ids=lambda fields: json.dumps(fields)[:50])
async def test_chat_fits_openai(live: Live, fields: dict[str, Any]) -> None:
    valid(published("CreateChatCompletionResponse"), (await live.chat(**fields)).json())
    schema = published("CreateChatCompletionStreamResponse")
    options = {"stream": True, "stream_options": {"include_usage": True}}
    for event in chunks(await live.chat(**fields, **options)):
        valid(schema, event)


@pytest.mark.parametrize("fields", [{}, {"logprobs": 2}, {"prompt": ["a", "b"], "n": 2}], ids=str)
async def test_completions_fit_openai(live: Live, fields: dict[str, Any]) -> None:
    schema = published("CreateCompletionResponse")
    valid(schema, (await live.text(**fields)).json())
    for event in chunks(await live.text(stream=True, **fields)):
        for choice in event["choices"]:
            # The schema has one form for both and no null; OpenAI's own streams have one.
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        valid(schema, event)


async def test_models_and_errors_fit_openai(live: Live) -> None:
    valid(published("ListModelsResponse"), (await live.http.get("/v1/models")).json())
    valid(published("Model"), (await live.http.get("/v1/models/org/raw@plain")).json())
    valid(published("ErrorResponse"), (await live.chat(n=0)).json())


async def test_the_published_examples_are_accepted_or_refused_for_a_reason(live: Live) -> None:
    folder = os.environ.get("SATISFICE_DATA")
    if folder is None:
        pytest.skip("SATISFICE_DATA is not set: no published examples")
    text = (Path(folder) / "openai_api" / "fixtures.jsonl").read_text("utf-8")
    seen = 0
    for example in map(json.loads, text.splitlines()):
        body, path = example["request_body"], example["path"]
        if body is None or path not in ("/chat/completions", "/completions"):
            continue
        response = await live.http.post(f"/v1{path}", json={**body, "model": "tab"})
        if response.status_code != 200:
            error = fault(response, 400)
            foreign = {"type", "audio", "modalities", "functions", "unsupported", "seed"}
            assert error["param"].rsplit(".", 1)[-1] in foreign, error
        seen += 1
    assert seen > 5


OWN = [
    ("/v1/chat/completions", "POST"), ("/v1/completions", "POST"), ("/v1/models", "GET"),
    ("/v1/models/{model}", "GET"), ("/v1/strategies", "GET"), ("/v1/strategies/{name}", "GET"),
    ("/v1/monitors", "GET"), ("/v1/moderations", "POST"), ("/tokenize", "POST"),
    ("/detokenize", "POST"), ("/tokenizer_info", "GET"),
    ("/health", "GET"), ("/ready", "GET"), ("/metrics", "GET"),
]  # fmt: skip


async def test_the_document_has_every_endpoint(live: Live) -> None:
    document = (await live.http.get("/openapi.json")).json()
    found = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    assert found == set(OWN)
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "')[1:]}:
        assert reference.rsplit("/", 1)[1] in document["components"]["schemas"], reference


@pytest.mark.parametrize("fields", MORE, ids=lambda fields: json.dumps(fields)[:50])
async def test_answers_fit_our_own_document(live: Live, fields: dict[str, Any]) -> None:
    document = (await live.http.get("/openapi.json")).json()
    valid(validator(document, "ChatCompletion"), (await live.chat(**fields)).json())
    text = (await live.text(logprobs=1, prompt_logprobs=1)).json()
    valid(validator(document, "TextCompletion"), text)
    dry = (await live.chat(decoding={"dry_run": True})).json()
    valid(validator(document, "DryRun"), dry)
    for path, name in (
        ("/v1/models", "ModelList"),
        ("/v1/models/tab", "ModelObject"),
        ("/v1/strategies", "StrategyList"),
        ("/v1/strategies/plain", "StrategyObject"),
        ("/v1/monitors", "MonitorList"),
        ("/health", "Health"),
        ("/ready", "Ready"),
        ("/nothing", "Error"),
    ):
        valid(validator(document, name), (await live.http.get(path)).json())
    ids = (
        await live.http.post("/tokenize", json={"prompt": "x", "return_token_strs": True})
    ).json()
    valid(validator(document, "Tokenized"), ids)


async def test_the_document_takes_what_we_take(live: Live) -> None:
    document = (await live.http.get("/openapi.json")).json()
    schema = validator(document, "ChatBody")
    valid(schema, {"model": "tab", "messages": [user("x")], "user": "me", "decoding": "plain"})
    assert not schema.is_valid({"model": "tab", "messages": [user("x")], "unheard_of": 1})
    assert not schema.is_valid({"model": "tab", "messages": []})
