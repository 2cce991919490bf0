"""A request that wakes a lazy engine: its stream is kept alive until the engine is up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engines.base import EngineError
from engines.table import Spec, TableEngine
from server.settings.spec import EngineSpec
from tests.server.api.live import SCRIPT, Live, chunks, fault, running, settings, user

BODY = {"model": "tab", "messages": [user("hello")], "temperature": 0, "stream": True}
LOADING = 0.5


class Slow(TableEngine):
    """Takes its time to load, and can fail to."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__("table", Spec(script=SCRIPT))
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
        fault(await live.http.post("/v1/chat/completions", json=BODY), 500)


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
