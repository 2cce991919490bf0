"""Models, strategies, monitors, tokens, moderation, probes and figures."""

from typing import Any

from decoders.core.registry import names, schema
from monitors.core.base import Stage
from monitors.core.registry import build
from server.monitors import described
from tests.server.api.live import Live, fault, user


async def test_models_list_virtual_ids(live: Live) -> None:
    listed = [model.id async for model in live.client.models.list()]
    assert {"tab", "org/raw", "tab@duo", "tab@plain", "org/raw@best_of_n"} <= set(listed)
    assert "org/raw@duo" not in listed
    for one in listed:
        assert (await live.http.get(f"/v1/models/{one}")).json()["id"] == one


async def test_strategies_tell_their_parameters(live: Live) -> None:
    listed = (await live.http.get("/v1/strategies")).json()["data"]
    assert [one["name"] for one in listed] == list(names())
    for one in listed:
        alone = (await live.http.get(f"/v1/strategies/{one['name']}")).json()
        assert alone == one
        assert one["parameters"] == schema(one["name"])
        assert one["summary"]
    error = fault(await live.http.get("/v1/strategies/nothing"), 404)
    assert error["code"] == "strategy_not_found"


async def test_monitors_tell_their_unit(live: Live) -> None:
    listed = (await live.http.get("/v1/monitors")).json()["data"]
    assert [one["name"] for one in listed] == ["seven"]
    assert listed[0]["unit"]
    assert listed[0]["threshold"] == 1.0
    assert (listed[0]["circuit"], listed[0]["warnings"]) == ("closed", [])
    assert listed[0]["bounds"] == {"low": 0, "high": 1}


async def test_a_configured_monitor_tells_what_it_cost() -> None:
    check = {"kind": "regex", "pattern": "x"}
    monitor = build("m", {"kind": "verifier", "check": check, "threshold": 0.5})
    await monitor.score([user("hi")], ["x"], Stage.ANSWER)
    shown = described("m", monitor)
    assert (shown["threshold"], shown["circuit"], shown["warnings"]) == (0.5, "closed", [])
    costs = shown["costs"]
    assert costs is not None
    assert (costs["calls"], costs["failures"], costs["refused"], costs["tokens"]) == (1, 0, 0, 0)


async def test_without_a_guard_there_is_no_moderation(live: Live) -> None:
    response = await live.http.post("/v1/moderations", json={"input": "x"})
    assert fault(response, 404)["code"] == "no_guard"


async def test_tokens_there_and_back(live: Live) -> None:
    fields: dict[str, Any] = {"model": "tab", "prompt": "café €", "return_token_strs": True}
    found = (await live.http.post("/tokenize", json=fields)).json()
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"]) == 9
    assert found["max_model_len"] == 4096
    back = await live.http.post("/detokenize", json={"model": "tab", "tokens": found["tokens"]})
    assert back.json() == {"prompt": "café €"}


async def test_messages_are_tokenized_as_they_are_decoded(live: Live) -> None:
    fields: dict[str, Any] = {"messages": [user("hello")]}
    found = (await live.http.post("/tokenize", json=fields)).json()
    answer = (await live.chat(max_tokens=1)).json()
    assert found["count"] == answer["usage"]["prompt_tokens"]
    assert found["token_strs"] is None


async def test_foreign_tokens_are_refused(live: Live) -> None:
    for tokens in ([10**6], [-1], [2**80], ["x"], [1.5]):
        response = await live.http.post("/detokenize", json={"tokens": tokens})
        assert fault(response, 400)["param"].startswith("tokens")
    for body in ({}, {"prompt": "x", "messages": [user("x")]}):
        fault(await live.http.post("/tokenize", json=body), 400)


async def test_probes_and_figures(live: Live) -> None:
    assert (await live.http.get("/health")).json() == {"status": "ok"}
    ready = (await live.http.get("/ready")).json()
    assert ready["ready"]
    assert ready["engines"] == {"table": "ready"}
    await live.chat()
    figures = await live.http.get("/metrics")
    assert figures.headers["content-type"].startswith("text/plain")
    assert "satisfice" in figures.text
    assert (await live.http.get("/docs")).status_code == 200
