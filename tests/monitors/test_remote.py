"""Remote guards against a real small server, and against our own moderations endpoint."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from monitors.core.base import Message, Monitor, MonitorError, Score, Stage, UnreadableError
from monitors.core.registry import build
from tests.fakes.upstream import Scripted, scripted
from tests.server.api.live import running
from tests.server.api.test_moderations import guarded

ASKED: list[Message] = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "how?"},
]
KEY = "sk-very-secret"
PATH = "/v1/moderations"


@pytest.fixture
def upstream() -> Iterator[Scripted]:
    with scripted() as script:
        yield script


@asynccontextmanager
async def started(upstream: Scripted | str, **spec: Any) -> AsyncIterator[Monitor]:
    url = upstream if isinstance(upstream, str) else upstream.url
    monitor = build("far", {"kind": "remote", "url": url, **spec})
    await monitor.start()
    yield monitor
    await monitor.stop()


def moderation(flagged: bool = False, flags: Any = None, **scores: Any) -> tuple[int, Any]:
    """A moderations endpoint's answer; a category is flagged above 0.5 unless told otherwise."""
    categories = {name: score > 0.5 for name, score in scores.items()} if flags is None else flags
    result = {"flagged": flagged, "categories": categories, "category_scores": scores}
    return 200, {"id": "x", "model": "m", "results": [result]}


async def asked(monitor: Monitor, *steps: str) -> Score:
    return await monitor.score(ASKED, steps, Stage.ANSWER)


async def test_the_highest_category_counts(upstream: Scripted) -> None:
    async with started(upstream, model="omni") as monitor:
        upstream.answers[PATH] = moderation(hate=0.1, violence=0.25)
        found = await asked(monitor, "think ", "answer")
        assert (found.value, found.raw, found.label) == (0.5, 0.25, "safe")
        assert upstream.asked[-1][2] == {"model": "omni", "input": "think answer"}
        upstream.answers[PATH] = moderation(True, hate=0.6, violence=0.9)
        found = await asked(monitor, "answer")
        assert found.value == pytest.approx(-0.8)
        assert found.label == "violence"
        assert found.value < monitor.threshold


async def test_only_configured_categories_count(upstream: Scripted) -> None:
    async with started(upstream, categories=["hate"]) as monitor:
        upstream.answers[PATH] = moderation(True, hate=0.25, violence=0.9)
        found = await asked(monitor, "answer")
        assert (found.value, found.label) == (0.5, "safe")
        upstream.answers[PATH] = moderation(True, violence=0.9)
        with pytest.raises(MonitorError, match=r"not an answer.*hate"):
            await asked(monitor, "answer")


async def test_flagged_without_a_score_is_the_worst(upstream: Scripted) -> None:
    async with started(upstream) as monitor:
        upstream.answers[PATH] = moderation(True, hate=0.0)
        found = await asked(monitor, "answer")
        assert (found.value, found.label) == (-1.0, "flagged")


async def test_what_is_read(upstream: Scripted) -> None:
    upstream.answers[PATH] = moderation(hate=0.0)
    async with started(upstream) as trace, started(upstream, reads="all") as whole:
        await trace.score(ASKED, [], Stage.ANSWER)
        assert upstream.asked[-1][2] == {"input": "how?"}
        await whole.score(ASKED, ["a", "b"], Stage.THINKING)
        assert upstream.asked[-1][2] == {"input": "be kind\n\nhow?\n\nab"}
        before = len(upstream.asked)
        assert (await asked(trace, " \n")).value == 1.0
        assert len(upstream.asked) == before, "an empty text has nothing to be judged"


async def test_a_classifiers_label_has_the_configured_value(upstream: Scripted) -> None:
    labels = {"SAFE": 1.0, "UNSAFE": -1.0}
    async with started(upstream, api="classify", labels=labels) as monitor:
        result = {"index": 0, "label": "UNSAFE", "probs": [0.25, 0.75], "num_classes": 2}
        upstream.answers["/classify"] = 200, {"data": [result], "usage": {"prompt_tokens": 7}}
        found = await asked(monitor, "answer")
        assert found == Score(-1.0, 0.75, "UNSAFE", 7)
        upstream.answers["/classify"] = 200, {"data": [{**result, "label": "LABEL_2"}]}
        with pytest.raises(MonitorError, match="'LABEL_2' is not in `labels`"):
            await asked(monitor, "answer")


@pytest.mark.parametrize(
    "answer",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"results": null}',
        b'{"results": []}',
        b'{"results": [{"flagged": false, "categories": {}, "category_scores": {}}]}',
        b'{"results": [{"flagged": false, "categories": {}, "category_scores": {"a": NaN}}]}',
        b'{"results": [{"flagged": false, "categories": {}, "category_scores": {"a": 2}}]}',
        b'{"results": [{"flagged": false, "categories": {}, "category_scores": {"a": "0"}}]}',
        b'{"results": [{"flagged": "no", "categories": {}, "category_scores": {"a": 0}}]}',
        b'{"results": [{"flagged": false, "categories": [], "category_scores": {"a": 0}}]}',
        b'{"results": [{"flagged": false, "category_scores": {"a": 0}}]}',
        b'{"results": [{"categories": {}, "category_scores": {"a": 0}}]}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 1_500_000,
    ],
)
async def test_what_cannot_be_understood_is_an_error(upstream: Scripted, answer: bytes) -> None:
    upstream.answers[PATH] = 200, answer
    async with started(upstream) as monitor:
        with pytest.raises(MonitorError):
            await asked(monitor, "answer")
        upstream.answers[PATH] = moderation(hate=0.0)
        assert (await asked(monitor, "answer")).value == 1.0


async def test_statuses_are_sorted_and_nothing_is_sent_twice(upstream: Scripted) -> None:
    async with started(upstream) as monitor:
        for status, kind in ((500, MonitorError), (429, MonitorError), (400, UnreadableError)):
            upstream.answers[PATH] = status, {"error": {"message": "no"}}
            before = len(upstream.asked)
            with pytest.raises(kind, match=str(status)):
                await asked(monitor, "answer")
            assert len(upstream.asked) == before + 1
        upstream.answers[PATH] = 302, {}
        with pytest.raises(MonitorError, match="302"):
            await asked(monitor, "answer")


async def test_the_key_is_sent_and_told_nobody(
    upstream: Scripted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(MonitorError, match="FAR_KEY is not set"):
        async with started(upstream, api_key_env="FAR_KEY"):
            pass
    monkeypatch.setenv("FAR_KEY", KEY)
    async with started(upstream, api_key_env="FAR_KEY") as monitor:
        upstream.answers[PATH] = 401, {"error": {"message": f"Incorrect API key: {KEY}"}}
        with pytest.raises(MonitorError, match="401") as raised:
            await asked(monitor, "answer")
        assert upstream.asked[-1][1]["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(raised.value) + repr(raised.value.__cause__) + caplog.text


async def test_a_server_that_is_not_there(upstream: Scripted) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(MonitorError, match="far"):
        async with started(nowhere):
            pass
    async with started(nowhere, health=None) as unasked:
        await unasked.check()
        with pytest.raises(MonitorError, match="connect"):
            await asked(unasked, "answer")
    upstream.answers["/health"] = 503, ""
    with pytest.raises(MonitorError, match="answers 503"):
        async with started(upstream):
            pass
    with pytest.raises(MonitorError, match="not started"):
        await asked(unasked, "answer")


@pytest.mark.parametrize("turns", range(12))
async def test_stopping_ends_calls_that_only_begin(upstream: Scripted, turns: int) -> None:
    upstream.answers[PATH] = 200, []
    upstream.hold = True
    async with started(upstream, health=None) as monitor:
        call = asyncio.create_task(asked(monitor, "answer"))
        for _ in range(turns):
            await asyncio.sleep(0)
    with pytest.raises(MonitorError, match="far"):
        await asyncio.wait_for(call, 10.0)


async def test_a_slow_server_times_out(upstream: Scripted) -> None:
    upstream.answers[PATH] = 200, []
    upstream.hold = True
    async with started(upstream, timeout_s=0.2) as monitor:
        with pytest.raises(MonitorError, match=r"longer than 0\.2 s"):
            await asked(monitor, "answer")
        assert upstream.left.wait(10), "the connection is closed"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"url": "ftp://x"}, "url"),
        ({"url": "http://me:pw@x"}, "without name, password"),
        ({"url": "http://x?key=1"}, "or query"),
        ({"url": "http://x", "api": "classify"}, "a value for each label"),
        ({"url": "http://x", "labels": {"a": 1.0}}, "moderations has none"),
        ({"url": "http://x", "api": "classify", "labels": {"a": 1}, "categories": ["b"]}, "none"),
        ({"url": "http://x", "retries": 3}, "retries"),
    ],
)
def test_a_faulty_configuration_is_refused(spec: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        build("far", {"kind": "remote", **spec})


async def test_our_own_endpoint_is_understood() -> None:
    async with running(guarded()) as live, started(f"{live.url}/v1", model="rules") as monitor:
        assert (await asked(monitor, "bread")).value == 1.0
        found = await asked(monitor, "a flumox")
        assert (found.value, found.label) == (-1.0, "violence")
        found = await asked(monitor, "grey salt")
        assert (found.value, found.label) == (-1.0, "flagged")
        with pytest.raises(UnreadableError, match="400"):
            await asked(monitor, "a" * 1_000_001)
