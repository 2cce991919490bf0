"""What the server's end does to requests: each is told so in the form that its answer has."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from engines.table import Spec, TableEngine
from server.settings.spec import EngineSpec, Settings
from tests.server.api.live import SCRIPT, Live, engine, fault, running, settings, user
from tests.waiting import until

PATH = "/v1/chat/completions"
ENDLESS: dict[str, Any] = {
    "model": "tab", "messages": [user("hm")], "max_tokens": 4000, "ignore_eos": True,
}  # fmt: skip
STREAM = {**ENDLESS, "stream": True}


class Held(TableEngine):
    """Loads until it is let go."""

    def __init__(self) -> None:
        super().__init__("table", Spec(script=SCRIPT, token_seconds=0.02))
        self.starts, self.go = 0, asyncio.Event()

    async def start(self) -> None:
        self.starts += 1
        await self.go.wait()
        await super().start()


def lazily(keep_alive_s: float = 0.05, **limits: Any) -> Settings:
    own = settings({"keep_alive_s": keep_alive_s}, limits=limits)
    return own.model_copy(update={"engines": {"table": EngineSpec(kind="table", lazy=True)}})


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """One that outlives the server."""
    async with httpx.AsyncClient(timeout=20) as one:
        yield one


async def begun(client: httpx.AsyncClient, live: Live) -> httpx.Response:
    """A stream that has had its head."""
    request = client.build_request("POST", live.url + PATH, json=STREAM)
    return await client.send(request, stream=True)


def last(text: str) -> str:
    return text.rstrip().split("\n\n")[-1]


def refused(response: httpx.Response) -> None:
    error = fault(response, 503)
    assert (error["code"], error["message"]) == ("overloaded", "the server is shutting down")
    assert response.headers["retry-after"]


@pytest.mark.parametrize("body", [ENDLESS, {**ENDLESS, "n": 2}], ids=["one", "two"])
async def test_an_answer_that_is_cut_off_before_its_first_byte_is_an_error_object(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    async with running(settings(), engine(token_seconds=0.02)) as live:
        asked = asyncio.create_task(client.post(live.url + PATH, json=body))
        await until(lambda: live.app.state.service.admission.running == 1)
    refused(await asked)


@pytest.mark.parametrize("stream", [True, False])
async def test_so_is_one_that_waits_for_its_turn(client: httpx.AsyncClient, stream: bool) -> None:
    limits = {"rows": 1, "branches": 1}
    own = settings({"keep_alive_s": 10}, limits=limits)
    async with running(own, engine(token_seconds=0.02)) as live:
        admission = live.app.state.service.admission
        first = asyncio.create_task(client.post(live.url + PATH, json=ENDLESS))
        await until(lambda: admission.running == 1)
        second = asyncio.create_task(
            client.post(live.url + PATH, json={**ENDLESS, "stream": stream})
        )
        await until(lambda: admission.queued == 1)
    refused(await second)
    refused(await first)


async def test_a_stream_that_waits_for_a_load_ends_with_an_event(
    client: httpx.AsyncClient,
) -> None:
    async with running(lazily(), Held()) as live:
        response = await begun(client, live)
    assert "shutting down" in last((await response.aread()).decode())
    assert response.text.startswith(": keep-alive")


async def test_and_so_does_one_that_waits_for_its_turn_after_it(
    client: httpx.AsyncClient,
) -> None:
    """Also where the last comment was the load's, since the cut comes before the queue's own."""
    table = Held()
    async with running(lazily(2.0, rows=1, branches=1), table) as live:
        admission = live.app.state.service.admission
        both = await asyncio.gather(*(begun(client, live) for _ in range(2)))
        table.go.set()
        await until(lambda: admission.queued == 1)
    for response in both:
        text = (await response.aread()).decode()
        assert "shutting down" in last(text)
        assert text.count("shutting down") == 1


async def test_a_drain_ends_at_once_what_waits_for_a_load(
    client: httpx.AsyncClient,
) -> None:
    table = Held()
    async with running(lazily(), table) as live:
        response = await begun(client, live)
        whole = asyncio.create_task(client.post(live.url + PATH, json=ENDLESS))
        await until(lambda: len(live.server.server_state.tasks) == 2)
        assert table.starts == 1
        live.server.handle_exit(signal.SIGTERM, None)
        refused(await whole)
        assert "shutting down" in last((await response.aread()).decode())


async def test_what_runs_may_end_while_it_drains(
    client: httpx.AsyncClient,
) -> None:
    async with running(settings(), engine(token_seconds=0.02)) as live:
        asked = asyncio.create_task(
            client.post(live.url + PATH, json={**ENDLESS, "max_tokens": 30})
        )
        await until(lambda: live.app.state.service.admission.running == 1)
        live.server.handle_exit(signal.SIGTERM, None)
        await until(lambda: live.app.state.service.admission.draining)
        assert (await asked).json()["usage"]["completion_tokens"] == 30
