"""A request that wakes a lazy engine: its stream is kept alive until the engine is up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import pytest

from engines.base import EngineError
from engines.table import Spec, TableEngine
from server.record import Record
from server.settings.spec import EngineSpec, KeySpec, ModelSpec
from tests.server.api.live import SCRIPT, Live, chunks, fault, running, settings, user

BODY = {"model": "tab", "messages": [user("hello")], "temperature": 0, "stream": True}
LOADING = 0.5


class Slow(TableEngine):
    """Takes its time to load, and can fail to."""

    def __init__(self, fails: bool = False, name: str = "table") -> None:
        super().__init__(name, Spec(script=SCRIPT))
        self.fails, self.starts = fails, 0

    async def start(self) -> None:
        self.starts += 1
        await asyncio.sleep(LOADING)
        if self.fails:
            raise EngineError("out of memory")
        await super().start()


@asynccontextmanager
async def asleep(engine: Slow, keep_alive_s: float = 0.1) -> AsyncIterator[Live]:
    own = settings({"keep_alive_s": keep_alive_s})
    lazy = {"table": EngineSpec(kind="table", lazy=True)}
    async with running(own.model_copy(update={"engines": lazy}), engine) as live:
        yield live


@pytest.mark.parametrize(
    ("path", "asked"),
    [("/v1/chat/completions", BODY), ("/v1/completions", {"prompt": "hello", "stream": True})],
)
async def test_a_stream_is_kept_alive_while_its_engine_loads(
    path: str, asked: dict[str, Any]
) -> None:
    async with asleep(Slow()) as live:
        response = await live.http.post(path, json={"model": "tab", **asked})
        assert response.status_code == 200
        assert response.headers["x-decoding-strategy"] == "plain"
        assert response.text.count(": keep-alive") >= 2
        events = [part for part in response.text.split("\n\n") if part.startswith("data: {")]
        assert '"finish_reason":"stop"' in events[-1] or '"finish_reason":"length"' in events[-1]
        awake = await live.http.post(path, json={"model": "tab", **asked})
        assert ": keep-alive" not in awake.text


async def test_what_is_wrong_after_the_stream_began_is_its_last_event() -> None:
    async with asleep(Slow()) as live:
        wrong = {**BODY, "messages": [{"role": "user", "content": "x" * 5000}]}
        response = await live.http.post("/v1/chat/completions", json=wrong)
        last = response.text.rstrip().split("\n\n")[-1]
        assert '"code": "context_length_exceeded"' in last


async def test_an_engine_that_fails_to_load_ends_the_stream() -> None:
    async with asleep(Slow(fails=True)) as live:
        response = await live.http.post("/v1/chat/completions", json=BODY)
        assert '"error"' in response.text.rstrip().split("\n\n")[-1]


async def test_before_the_first_comment_a_fault_has_its_status() -> None:
    async with asleep(Slow(fails=True), keep_alive_s=5) as live:
        both = [live.http.post("/v1/chat/completions", json=BODY) for _ in range(2)]
        answers = [*await asyncio.gather(*both), await live.chat()]
        for answer in answers:
            assert "out of memory" in fault(answer, 503)["message"]
            assert answer.headers["retry-after"]
            assert "x-should-retry" not in answer.headers


async def test_before_the_first_comment_an_answer_is_as_ever() -> None:
    async with asleep(Slow(), keep_alive_s=5) as live:
        whole = chunks(await live.http.post("/v1/chat/completions", json=BODY))
        assert whole[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_client_that_leaves_leaves_the_engine_loading() -> None:
    engine = Slow()
    async with asleep(engine) as live:
        async with live.http.stream("POST", "/v1/chat/completions", json=BODY) as response:
            async for line in response.aiter_lines():
                assert line in (": keep-alive", "")
                break
        await asyncio.sleep(0.1)
        assert await live.idle()
        response = await live.http.post("/v1/chat/completions", json=BODY)
        assert '"finish_reason":"stop"' in response.text
        assert engine.starts == 1


@pytest.mark.parametrize("fields", [{"stream": False}, {"decoding": {"dry_run": True}}])
async def test_what_is_no_stream_waits_for_its_answer(fields: dict[str, Any]) -> None:
    async with asleep(Slow()) as live:
        response = await live.http.post("/v1/chat/completions", json={**BODY, **fields})
        assert response.headers["content-type"] == "application/json"
        assert response.status_code == 200


PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": BODY["messages"]},
    "/v1/completions": {"prompt": "x"},
}


def due(milliseconds: int) -> dict[str, Any]:
    return {"decoding": {"budget": {"deadline_ms": milliseconds}}}


@pytest.mark.parametrize("path", PATHS)
async def test_a_deadline_that_passes_while_the_engine_loads_is_503(path: str) -> None:
    engine = Slow()
    async with asleep(engine, keep_alive_s=5) as live:
        for stream in (False, True):
            body = {"model": "tab", "stream": stream, **PATHS[path], **due(50)}
            answer = await live.http.post(path, json=body)
            error = fault(answer, 503)
            assert (error["code"], "deadline" in error["message"]) == ("overloaded", True)
            assert answer.headers["retry-after"]
        assert (await live.chat(**due(20000))).status_code == 200
        assert engine.starts == 1


async def test_a_stream_that_has_begun_says_so_in_its_last_event() -> None:
    async with asleep(Slow()) as live:
        response = await live.http.post("/v1/chat/completions", json={**BODY, **due(250)})
        assert response.text.startswith(": keep-alive")
        assert "deadline" in response.text.rstrip().split("\n\n")[-1]


@pytest.mark.parametrize("path", PATHS)
async def test_the_time_of_a_request_counts_from_its_arrival(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asleep(Slow()) as live:
        records: list[Record] = []
        monkeypatch.setattr(live.app.state.service.metrics, "observe", records.append)
        body = {"model": "tab", "seed": 1, "ignore_eos": True, **PATHS[path], **due(20000)}
        assert (await live.http.post(path, json=body)).status_code == 200
        [record] = records
        assert record.first_token is not None
        assert record.first_token >= LOADING


@asynccontextmanager
async def with_peer(peer: Slow, **more: Any) -> AsyncIterator[Live]:
    """The peer is lazy, the request's own model is not."""
    own = settings({"keep_alive_s": 0.1}, **more)
    own.engines["far"] = EngineSpec(kind="table", lazy=True)
    own.models["far"] = ModelSpec(engine="far")
    async with running(own, others={"far": peer}) as live:
        yield live


def speaking(*models: str) -> dict[str, Any]:
    params = {"models": models, "alpha": 0.0, "block": 8, "candidates": 2}
    return {"strategy": "collab", "params": {**params, "utility": "prefix_reward"}}


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_is_kept_alive_while_a_peer_loads(path: str) -> None:
    async with with_peer(Slow(name="far")) as live:
        body = {"model": "org/raw", "stream": True, "max_tokens": 20, **PATHS[path]}
        response = await live.http.post(path, json={**body, "decoding": speaking("org/raw", "far")})
        assert response.text.startswith(": keep-alive")
        assert response.text.rstrip().endswith("data: [DONE]")


async def test_a_peer_that_may_not_be_asked_is_not_loaded() -> None:
    key = KeySpec(hash=sha256(b"few").hexdigest(), models=["org/raw"])
    peer = Slow(name="far")
    async with with_peer(peer, keys={"few": key}) as live:
        live.http.headers["authorization"] = "Bearer few"
        asked = {"model": "org/raw", "decoding": speaking("org/raw", "far")}
        error = fault(await live.chat(**asked), 403)
        assert error["param"] == "decoding.params.models"
    assert peer.starts == 0


async def test_nothing_is_loaded_for_a_peer_that_does_not_exist() -> None:
    peer = Slow(name="far")
    async with with_peer(peer) as live:
        asked = {"model": "org/raw", "decoding": speaking("far", "nobody")}
        error = fault(await live.chat(**asked), 400)
        assert error["param"] == "decoding.params.models"
    assert peer.starts == 0
