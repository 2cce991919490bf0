"""A client that goes away ends everything; silence is filled; sent and noticed at once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from statistics import median
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.server.api.live import Live, engine, running, settings, user
from tests.waiting import until

SLOW = 0.01


@pytest_asyncio.fixture(scope="module")
async def slow() -> AsyncIterator[Live]:
    """A server whose engine takes its time."""
    table = engine(token_seconds=SLOW)
    async with running(settings({"keep_alive_s": 0.2}), table) as started:
        yield started


ENDLESS: dict[str, Any] = {
    "model": "tab", "messages": [user("hm")], "max_tokens": 2000, "ignore_eos": True, "seed": 1,
}  # fmt: skip


async def vanish(live: Live, body: dict[str, Any], leave: Callable[[], bool]) -> None:
    """Sends a request and closes the connection once it is to leave, while it is answered."""
    host, port = live.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    raw = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(raw)}\r\n"
    writer.write(f"{head}content-type: application/json\r\n\r\n".encode() + raw)
    await writer.drain()
    await until(leave)
    writer.close()
    del reader


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 4},
        {"decoding": {"strategy": "parallel_thinking", "params": {"paths": 8}}},
        {"decoding": {"strategy": "best_of_n", "params": {"samples": 8}}},
        {"decoding": {"strategy": "parallel_thinking", "stream_events": True}},
    ],
    ids=str,
)
async def test_everything_ends_with_the_client(
    slow: Live, stream: bool, fields: dict[str, Any]
) -> None:
    body = {**ENDLESS, **fields, "stream": stream}
    await vanish(slow, body, lambda: slow.engine.running >= 1)
    assert await slow.idle(1.0)
    assert slow.app.state.service.admission.running == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_what_it_was_given_is_counted(slow: Live, stream: bool) -> None:
    registry, what = slow.app.state.service.metrics.registry, {"model": "tab", "strategy": "plain"}

    def counted() -> dict[str, float]:
        kinds = ("aborted_requests", "generated_tokens", "committed_tokens", "discarded_tokens")
        names = {kind: f"satisfice_{kind}_total" for kind in kinds}
        return {kind: registry.get_sample_value(name, what) or 0 for kind, name in names.items()}

    before, sampled = counted(), slow.engine.figures()["tokens_sampled"]
    body = {**ENDLESS, "stream": stream}
    await vanish(slow, body, lambda: slow.engine.figures()["tokens_sampled"] >= sampled + 20)
    await until(lambda: counted()["aborted_requests"] > before["aborted_requests"])
    spent = {kind: value - before[kind] for kind, value in counted().items()}
    assert spent["generated_tokens"] >= 20
    given, lost = spent["committed_tokens"], spent["discarded_tokens"]
    assert given + lost == spent["generated_tokens"]
    assert (given >= 19) if stream else (given == 0)


async def test_two_hundred_vanish_and_nothing_is_left(slow: Live) -> None:
    bodies = [{**ENDLESS, "stream": i % 2 == 0, "n": 1 + i % 3} for i in range(200)]
    admission = slow.app.state.service.admission

    def all_are_here() -> bool:
        return bool(slow.engine.running and admission.running + admission.queued == 200)

    await asyncio.gather(*(vanish(slow, body, all_are_here) for body in bodies))
    assert await slow.idle(1.0)
    await until(lambda: (admission.running, admission.queued, admission.rows) == (0, 0, 0))
    assert (await slow.chat()).status_code == 200


async def test_a_stock_client_that_stops_reading_ends_it(slow: Live) -> None:
    stream = await slow.client.chat.completions.create(
        model="tab", messages=[{"role": "user", "content": "hm"}], max_tokens=2000, stream=True,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    async for _ in stream:
        break
    await stream.close()
    assert await slow.idle(1.0)


async def test_a_client_that_leaves_the_queue_is_forgotten() -> None:
    limits = {"rows": 1, "branches": 1, "queue": 5}
    async with running(settings(limits=limits), engine(token_seconds=SLOW)) as live:
        admission, over = live.app.state.service.admission, asyncio.Event()
        busy = asyncio.create_task(vanish(live, ENDLESS, over.is_set))
        await until(lambda: live.engine.running == 1)
        await vanish(live, ENDLESS, lambda: admission.queued == 1)
        await until(lambda: admission.queued == 0)
        assert live.engine.running == 1
        over.set()
        await busy
        assert await live.idle(1.0)


async def test_tokens_leave_as_they_come(slow: Live) -> None:
    body = {**ENDLESS, "max_tokens": 60, "stream": True}
    times = []
    async with slow.http.stream("POST", "/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                times.append(time.monotonic())
    assert times[-1] - times[0] > 30 * SLOW
    assert median(b - a for a, b in pairwise(times)) < 0.1


@pytest.mark.parametrize("every", [0.1, 0.25])
async def test_silence_is_filled(every: float) -> None:
    """Best of n says nothing until all samples are there."""
    table = engine(token_seconds=0.02)
    async with running(settings({"keep_alive_s": every}), table) as live:
        decoding = {"strategy": "best_of_n", "params": {"samples": 2}}
        body = {**ENDLESS, "max_tokens": 50, "stream": True, "decoding": decoding}
        began = time.monotonic()
        async with live.http.stream("POST", "/v1/chat/completions", json=body) as response:
            kept, last = [], began
            async for line in response.aiter_lines():
                if line == ": keep-alive":
                    kept.append(time.monotonic() - last)
                    last = time.monotonic()
        assert len(kept) >= 3
        assert len(kept) <= (time.monotonic() - began) / every
        assert median(kept) < every + 0.2


async def test_an_unstreamed_answer_is_json_however_long_it_takes(slow: Live) -> None:
    answer = await slow.chat(messages=[user("hm")], max_tokens=50, ignore_eos=True)
    assert answer.json()["usage"]["completion_tokens"] == 50


async def test_a_deadline_is_an_outcome(slow: Live) -> None:
    decoding = {"budget": {"deadline_ms": 600}}
    body = {**ENDLESS, "decoding": decoding}
    answer = (await slow.http.post("/v1/chat/completions", json=body)).json()
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["decoding"]["outcome"] == "budget_exhausted"
    assert choice["decoding"]["reason"] == "deadline_ms"
    assert 0 < answer["usage"]["completion_tokens"] < 90


async def test_draining_refuses_what_is_new() -> None:
    async with running(settings(), engine(token_seconds=SLOW)) as live:
        old = asyncio.create_task(
            live.http.post("/v1/chat/completions", json={**ENDLESS, "max_tokens": 40})
        )
        await until(lambda: live.engine.running == 1)
        drained = asyncio.create_task(live.app.state.service.admission.drain(5))
        await asyncio.sleep(0)
        new: httpx.Response = await live.chat()
        assert new.status_code == 503
        assert "retry-after" in new.headers
        assert (await live.http.get("/ready")).status_code == 503
        assert (await live.http.get("/health")).status_code == 200
        assert (await old).status_code == 200
        assert await drained
