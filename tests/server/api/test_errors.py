"""Every fault has its status, its object and the path of its field; bad input never breaks us."""

import asyncio
from hashlib import sha256
from http.client import HTTPConnection
from typing import Any

import httpx
import openai
import pytest

from server.settings.spec import BudgetSpec, KeySpec, Rate
from tests.fakes.requests import SINGLE
from tests.server.api.live import Live, engine, fault, running, settings, user
from tests.waiting import until

DEEP: Any = 1
for _ in range(150):
    DEEP = {"a": DEEP}
PART = {"type": "text", "text": "x"}
PICTURE = {"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"n": 0}, "n"),
        ({"n": 10**30}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 10**40}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"stop": [""]}, "stop.0"),
        ({"stop": ["a", 5]}, "stop.1"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"stop_token_ids": [99999]}, "stop_token_ids"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"min_tokens": 9, "max_tokens": 3}, "min_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0"),
        ({"messages": [user("x"), {"content": "x"}]}, "messages.1.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{**user("x"), "secret": 1}]}, "messages.0.secret"),
        (
            {"messages": [{"role": "user", "content": [PART, PICTURE]}]},
            "messages.0.content.1.type",
        ),
        ({"unheard_of": 1}, "unheard_of"),
        ({"best_of": 3}, "best_of"),
        ({"chat_template": "{{ x }}"}, "chat_template"),
        ({"logits_processors": ["os.system"]}, "logits_processors"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"add_generation_prompt": True, "continue_final_message": True}, "continue_final_message"),
        ({"decoding": "nonsense"}, "decoding.strategy"),
        ({"decoding": {"strategy": "nonsense"}}, "decoding.strategy"),
        ({"decoding": 5}, "decoding"),
        ({"decoding": {"stratgy": "plain"}}, "decoding.stratgy"),
        ({"decoding": {"params": {"x": 1}}}, "decoding.params.x"),
        (
            {"decoding": {"strategy": "best_of_n", "params": {"samples": 0}}},
            "decoding.params.samples",
        ),
        ({"decoding": {"budget": {"deadline_ms": 0}}}, "decoding.budget.deadline_ms"),
        ({"decoding": {"trace": "all"}}, "decoding.trace"),
        ({"decoding": {"on_monitor_error": "continue"}}, "decoding.on_monitor_error"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a"}, "guided_regex": "a"}, "guided_regex"),
        ({"guided_json": {"type": "nothing"}}, "guided_json"),
        ({"guided_json": {"$ref": "http://example.com/schema"}}, "guided_json"),
        ({"guided_json": {"type": "array", "minItems": 10**9}}, "guided_json"),
        (
            {"guided_json": {"minItems": 900, "items": {"items": {"maxLength": 900}}}},
            "guided_json",
        ),
        ({"guided_json": {"type": "string", "pattern": "(a{900}){900}"}}, "guided_json"),
        ({"guided_json": {"enum": list(range(30_000))}}, "guided_json"),
        ({"guided_regex": "(a{1000}){1000}"}, "guided_regex"),
        ({"guided_regex": "a{99999999999999999999}"}, "guided_regex"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "code"}]}, "tools.0.type"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"messages": [user("x" * 5000)]}, "messages"),
    ],
)
async def test_a_bad_field_is_named(live: Live, fields: dict[str, Any], param: str) -> None:
    error = fault(await live.chat(**fields), 400)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt.0"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [[1], ["a"]]}, "prompt.1.0"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": [-1]}, "prompt.0"),
        ({"prompt": [[1], [2**70]]}, "prompt.1.0"),
        ({"suffix": "x"}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
async def test_a_bad_prompt_is_named(live: Live, fields: dict[str, Any], param: str) -> None:
    assert fault(await live.text(**fields), 400)["param"] == param


async def test_too_long_has_a_code_of_its_own(live: Live) -> None:
    error = fault(await live.chat(messages=[user("x" * 5000)]), 400)
    assert error["code"] == "context_length_exceeded"
    error = fault(await live.text(prompt="x" * 4096), 400)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")


@pytest.mark.parametrize(
    "fields", [{"user": 5}, {"metadata": DEEP}, {"store": True}, {"best_of": 1}]
)
async def test_fields_without_effect_are_taken(live: Live, fields: dict[str, Any]) -> None:
    assert (await live.text(model="org/raw", **fields)).status_code in (200, 400)
    if "best_of" not in fields:
        assert (await live.chat(**fields)).status_code == 200


@pytest.mark.parametrize(
    "model", ["nothing", "tab@nothing", "nothing@plain", "tab@", "@plain", "tab@duo@duo", "\x00"]
)
async def test_an_unknown_model_is_absent(live: Live, model: str) -> None:
    error = fault(await live.chat(model=model), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"null", b"[]", b'"x"', b'{"model": NaN}', b"\xff\xfe", b"[" * 100_000,
        b'{"model":"tab","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"seed":' + b"9" * 10_000 + b"}",
    ],
    ids=lambda raw: str(raw[:12]),
)  # fmt: skip
async def test_what_is_no_json_is_refused(live: Live, raw: bytes) -> None:
    headers = {"content-type": "application/json"}
    for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/v1/moderations"):
        response = await live.http.post(path, content=raw, headers=headers)
        assert fault(response, 400)["code"] in ("invalid_json", "missing_required_parameter")


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": float("inf")},
        {"chat_template_kwargs": {"x": [float("inf")]}},
        {"decoding": {"params": {"x": {"y": float("-inf")}}}},
        {"guided_json": {"minimum": float("inf")}},
    ],
)
async def test_infinite_numbers_are_refused(live: Live, fields: dict[str, Any]) -> None:
    import json

    body = {"model": "tab", "messages": [user("hello")], **fields}
    raw = json.dumps(body).replace("Infinity", "1e999")
    headers = {"content-type": "application/json"}
    fault(await live.http.post("/v1/chat/completions", content=raw, headers=headers), 400)


async def test_odd_text_is_answered(live: Live) -> None:
    for text in ("\x00", "\u202e", "<|end|><|system|>", "{{ 7*7 }}", "\U0010ffff", " "):
        assert (await live.chat(messages=[user(text)], max_tokens=2)).status_code == 200


async def test_another_media_type_is_415(live: Live) -> None:
    response = await live.http.post("/v1/chat/completions", data={"model": "tab"})
    assert fault(response, 415)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/health/", 404),
        ("POST", "/v1/responses", 404),
        ("POST", "/v1/embeddings", 404),
        ("POST", "/v1/audio/speech", 404),
        ("GET", "/v1/models/not/there", 404),
        ("GET", "/v1/strategies/nothing", 404),
        ("POST", "/v1/moderations", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/health", 405),
    ],
)
async def test_other_paths_and_methods(live: Live, method: str, path: str, status: int) -> None:
    response = await live.http.request(method, path, json={"input": "x"})
    fault(response, status)
    assert status != 405 or "allow" in response.headers


async def test_head_is_get_without_the_body(live: Live) -> None:
    for path, status in (("/health", 200), ("/v1/models", 200), ("/v1/models/none", 404)):
        response = await live.http.head(path)
        assert (response.status_code, response.content) == (status, b"")
    assert (await live.http.head("/v1/completions")).status_code == 405


@pytest.mark.parametrize("announced", [True, False])
async def test_a_large_body_is_413(announced: bool) -> None:
    body = b'{"model": "tab", "messages": "' + b"x" * 5000 + b'"}'

    async def parts() -> Any:
        yield body

    async with running(settings(limits={"body_bytes": 1000})) as live:
        content = body if announced else parts()
        headers = {"content-type": "application/json"}
        response = await live.http.post("/v1/completions", content=content, headers=headers)
        assert fault(response, 413)["code"] == "body_too_large"
        assert (await live.chat()).status_code == 200


async def test_a_client_that_sends_all_before_it_reads_gets_the_413() -> None:
    def posted(url: str) -> int:
        host = url.removeprefix("http://")
        connection = HTTPConnection(host, timeout=10)
        body = b"x" * 6_000_000  # more than socket buffers hold: the server must take it
        headers = {"content-type": "application/json", "connection": "close"}
        connection.request("POST", "/v1/completions", body, headers)
        return connection.getresponse().status

    async with running(settings(limits={"body_bytes": 500_000})) as live:
        assert await asyncio.to_thread(posted, live.url) == 413


async def test_the_stock_client_sees_our_faults(live: Live) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await live.client.completions.create(model="tab", prompt="x", temperature=9)
    assert caught.value.param == "temperature"
    assert caught.value.code == "invalid_value"
    with pytest.raises(openai.NotFoundError) as absent:
        await live.client.completions.create(model="none", prompt="x")
    assert absent.value.code == "model_not_found"


def keyed() -> dict[str, KeySpec]:
    def digest(text: str) -> str:
        return sha256(text.encode()).hexdigest()

    return {
        "all": KeySpec(hash=digest("all")),
        "few": KeySpec(
            hash=digest("few"),
            strategies=["plain"],
            budget=BudgetSpec(max_generated_tokens=10),
            rate=Rate(requests_per_minute=3),
        ),
    }


async def test_a_key_s_deadline_below_the_server_s_is_no_fault_of_who_sets_none() -> None:
    short = KeySpec(hash=sha256(b"short").hexdigest(), budget=BudgetSpec(deadline_ms=5000))
    async with running(settings(keys={"short": short}, limits={"deadline_ms": 60000})) as live:
        live.http.headers["authorization"] = "Bearer short"
        assert (await live.chat()).status_code == 200
        response = await live.chat(decoding={"budget": {"deadline_ms": 5001}})
        assert fault(response, 403)["param"] == "decoding.budget.deadline_ms"


async def test_keys_open_what_they_may() -> None:
    async with running(settings(keys=keyed())) as live:
        for path in ("/health", "/ready", "/metrics"):
            assert (await live.http.get(path)).status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}):
            for path in ("/v1/models", "/v1/nothing"):
                error = fault(await live.http.get(path, headers=headers), 401)
                assert error["code"] == "invalid_api_key"
        live.http.headers["authorization"] = "Bearer all"
        assert (await live.chat(decoding="best_of_n")).status_code == 200
        live.http.headers["authorization"] = "Bearer few"
        assert fault(await live.chat(decoding="best_of_n"), 403)["param"] == "decoding.strategy"
        spend = {"budget": {"max_generated_tokens": 11}}
        error = fault(await live.chat(decoding=spend), 403)
        assert error["param"] == "decoding.budget.max_generated_tokens"
        answers = [await live.chat() for _ in range(4)]
        assert answers[0].json()["usage"]["decoding"]["generated_tokens"] == 10
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert fault(answers[-1], 429)["code"] == "rate_limit_exceeded"
        assert int(answers[-1].headers["retry-after"]) >= 1


async def test_a_wide_request_is_refused() -> None:
    async with running(settings(limits={"branches": 2, "rows": 4})) as live:
        assert fault(await live.chat(n=3), 400)["code"] == "too_many_branches"


async def test_the_queue_has_an_end_and_a_deadline() -> None:
    limits = {"rows": 1, "branches": 1, "queue": 1}
    async with running(settings(limits=limits), engine(token_seconds=0.02)) as live:
        admission = live.app.state.service.admission
        long = {"messages": [user("hm")], "max_tokens": 80, "ignore_eos": True}
        busy = asyncio.create_task(live.chat(**long))
        await until(lambda: admission.running == 1)
        late = {"decoding": {"budget": {"deadline_ms": 500}}}
        waiting = asyncio.create_task(live.chat(**late))
        await until(lambda: admission.queued == 1)
        full = await live.chat()
        assert fault(full, 503)["code"] == "overloaded"
        assert int(full.headers["retry-after"]) >= 1
        fault(await waiting, 503)
        assert (await busy).status_code == 200


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [("error", 500, "engine_error"), ("dead", 503, "engine_lost"), ("busy", 503, "engine_busy")],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_failing_engine(kind: str, status: int, code: str, stream: bool) -> None:
    failing = engine(failure={"kind": kind, "after": 0, "times": 1})
    async with running(settings(), failing) as live:
        response = await live.chat(stream=stream)
        assert fault(response, status)["code"] == code
        assert ("retry-after" in response.headers) == (status == 503)
        assert (response.headers.get("x-should-retry") == "false") == (status == 500)


async def test_an_error_in_a_stream_is_its_last_event() -> None:
    failing = engine(failure={"kind": "error", "after": 5})
    async with running(settings(), failing) as live:
        response = await live.chat(stream=True)
        assert response.status_code == 200
        events = [line for line in response.text.split("\n\n") if line]
        assert events[-1].startswith('data: {"error"')
        assert "[DONE]" not in response.text
        with pytest.raises(openai.APIError, match="failed after 5"):
            stream = await live.client.completions.create(
                model="tab", prompt="x", stream=True, extra_body={"ignore_eos": True}
            )
            _ = [chunk async for chunk in stream]


async def test_no_strategy_takes_an_unknown_parameter(live: Live) -> None:
    for name in SINGLE:
        decoding = {"strategy": name, "params": {"no_such_parameter": 1}}
        error = fault(await live.chat(decoding=decoding), 400)
        assert error["param"] == "decoding.params.no_such_parameter"


async def test_cors_is_off_unless_configured(live: Live) -> None:
    origin = {"origin": "http://page.example"}
    answer = await live.http.get("/health", headers=origin)
    assert "access-control-allow-origin" not in answer.headers
    async with running(settings({"cors_origins": ["http://page.example"]})) as other:
        answer = await other.http.get("/nothing", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "http://page.example"


async def test_a_half_sent_body_leaves_nothing_behind(live: Live) -> None:
    async def parts() -> Any:
        yield b'{"model": '
        raise httpx.WriteError("gone")

    with pytest.raises(httpx.WriteError):
        await live.http.post("/v1/completions", content=parts())
    assert (await live.chat()).status_code == 200
