"""A real server on a loopback port over a table engine, in the test's own event loop."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from openai import AsyncOpenAI

from engines.base import Engine
from engines.table import TableEngine, build
from monitors.core.base import Monitor
from monitors.verifier import Regex, from_spec
from server.app import create_app
from server.fleet import Fleet
from server.serve import Server
from server.settings.spec import (
    EngineSpec,
    Limits,
    ModelSpec,
    MonitorSpec,
    ServerSpec,
    Settings,
    StrategySpec,
)

THINKER = "<think>\nlet me see 3+4=7\n</think>\n\nThe answer is 7."
CALL = 'Sure. <tool_call>{"name": "add", "arguments": {"a": 3, "b": 4}}</tool_call>'
SCRIPT = {
    "hello": THINKER,
    "cut": "<think>\nno end of it",
    "phone": CALL,
    "dial": CALL.removeprefix("Sure. ") * 2,
    "euro": "3 € for café",
    "braces": '{"a": 3, "b": 4}',
}


def engine(**spec: Any) -> TableEngine:
    """A table engine with the script."""
    return build("table", {"kind": "table", "script": SCRIPT, **spec})


def settings(server: dict[str, Any] | None = None, **more: Any) -> Settings:
    """One engine under two names: `tab` thinks, `raw` has no markers and one preset."""
    best = StrategySpec(strategy="best_of_n", params={"samples": 2, "monitor": "seven"})
    limits = Limits(**more.pop("limits", {}))
    return Settings(
        server=ServerSpec(log_level="error", **(server or {})),
        engines={"table": EngineSpec(kind="table")},
        monitors={"seven": MonitorSpec(kind="verifier")},
        models={
            "tab": ModelSpec(engine="table", think=("<think>", "</think>"), presets={"duo": best}),
            "org/raw": ModelSpec(engine="table"),
        },
        limits=limits,
        **more,
    )


@dataclass(frozen=True)
class Live:
    """A running server."""

    url: str
    app: FastAPI
    server: Server
    engine: TableEngine
    http: httpx.AsyncClient
    client: AsyncOpenAI

    async def chat(self, **fields: Any) -> httpx.Response:
        """POSTs a chat completion of a short conversation."""
        body = {"model": "tab", "messages": [user("hello")], "temperature": 0, **fields}
        return await self.http.post("/v1/chat/completions", json=body)

    async def text(self, **fields: Any) -> httpx.Response:
        """POSTs a text completion."""
        body = {"model": "tab", "prompt": "once", "temperature": 0, **fields}
        return await self.http.post("/v1/completions", json=body)

    async def idle(self, seconds: float = 1.0) -> bool:
        """Whether the engine has nothing left to do within `seconds`."""
        for _ in range(int(seconds / 0.005)):
            if not self.engine.running:
                return True
            await asyncio.sleep(0.005)
        return self.engine.running == 0


def user(text: str) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": text}


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    """The JSON events of a stream, which must end with [DONE]."""
    events = [line for line in response.text.split("\n\n") if line and not line.startswith(":")]
    assert all(event.startswith("data: ") for event in events), events[:3]
    assert events[-1] == "data: [DONE]", events[-1]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-1]]


def fault(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error object of a response, its form and status checked."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    return error


@asynccontextmanager
async def running(
    own: Settings,
    table: TableEngine | None = None,
    monitor: Monitor | None = None,
    others: Mapping[str, Engine] | None = None,
) -> AsyncIterator[Live]:
    """Starts a server for `own` and stops it; `monitor` stands in for the one that wants a 7.

    `others` stand in for engines besides `table`.
    """
    table = table or engine()
    seven = monitor or from_spec(Regex(kind="regex", pattern="7"))
    engines = {"table": table, **(others or {})}
    app = create_app(own, Fleet(own, engines=engines, monitors={"seven": seven}))
    config = uvicorn.Config(
        app, port=0, access_log=False, log_config=None, lifespan="on", timeout_graceful_shutdown=1
    )
    server = Server(config, app.state.service, own.server.drain_s)
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]  # they are pytest's
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), task.exception()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        yield Live(url, app, server, table, http, client)
        await client.close()
    server.should_exit = True
    await task
