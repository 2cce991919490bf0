"""Schema-driven fuzzing: whatever fits our OpenAPI document, or nearly does, gets no 5xx.

`SATISFICE_FUZZ` is the number of cases over all endpoints (200 by default; 5,000 for the figure),
`SATISFICE_FUZZ_URL` a server that runs already, with any engine, in place of one over a table.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.server.process import serving

CASES = int(os.environ.get("SATISFICE_FUZZ", "200"))
CONFIG = """
server: {log_level: error, log_format: json}
engines: {table: {kind: table}}
models: {tab: {engine: table, think: ["<think>", "</think>"]}}
limits: {body_bytes: 100000}
"""
WEIGHTS = {
    "/v1/chat/completions": 8,
    "/v1/completions": 6,
    "/tokenize": 3,
    "/detokenize": 2,
    "/v1/moderations": 1,
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if running := os.environ.get("SATISFICE_FUZZ_URL"):
        yield running.rstrip("/")
        return
    config = Path(tmp_path_factory.mktemp("fuzz")) / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    with serving(config) as (found, _):
        yield found


@pytest.fixture(scope="module")
def model(url: str) -> str:
    """A model of the server's, by its own name."""
    return str(httpx.get(f"{url}/v1/models").json()["data"][0]["id"])


def asked(path: str, body: Any, model: str) -> Any:
    """The body for a model that is there, and short: so that it gets past the first check."""
    if not isinstance(body, dict):
        return body
    return {**body, "model": model} | ({"max_tokens": 3} if "completions" in path else {})


def cases(operation: Any) -> st.SearchStrategy[Any]:
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    return st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_nothing_breaks_the_server(url: str, model: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [cast(Any, found).ok() for found in schema.get_all_operations()]
    statuses: dict[int, int] = {}
    for operation in operations:
        share = WEIGHTS.get(operation.path)
        count = 5 if share is None else CASES * share // sum(WEIGHTS.values()) + 1
        fuzz(url, model, operation, count, statuses)
    assert statuses.get(200, 0) > 0
    assert statuses.get(400, 0) > 0
    assert sum(statuses.values()) >= CASES
    answer = httpx.post(f"{url}/v1/completions", json={"model": model, "prompt": "x"})
    assert answer.status_code == 200


def fuzz(url: str, model: str, operation: Any, count: int, statuses: dict[int, int]) -> None:
    """Sends `count` cases of one endpoint; none may be answered with 5xx or in another form."""

    @seed(1)
    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=cases(operation), aimed=st.booleans())
    def one(case: Any, aimed: bool) -> None:
        if aimed:
            case.body = asked(operation.path, case.body, model)
        response = case.call(base_url=url, timeout=30)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    one()
