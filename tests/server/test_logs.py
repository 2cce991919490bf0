"""Log lines are JSON, carry the request's id, and hold no text unless configured."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from server import logs
from server.record import Record


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()
    logs.clear()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def record(**fields: Any) -> Record:
    own = {"model": "mini", "strategy": "plain", "seconds": 0.12345, "outcome": "complete"}
    return Record(request_id="r1", endpoint="chat", **{**own, **fields})


def test_a_request_is_one_line_without_text() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logs.access(record(), prompt="my secret", answer="my answer")
    [line] = lines(stream)
    assert line["event"] == "request"
    assert (line["request_id"], line["model"], line["strategy"]) == ("r1", "mini", "plain")
    assert (line["seconds"], line["outcome"], line["level"]) == (0.1235, "complete", "info")
    assert "secret" not in stream.getvalue()
    assert "answer" not in stream.getvalue()


def test_text_is_written_if_configured() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream, prompts=True)
    logs.access(record(), prompt="p", answer="a")
    assert (lines(stream)[0]["prompt"], lines(stream)[0]["answer"]) == ("p", "a")


def test_faults_of_the_server_are_errors() -> None:
    stream = io.StringIO()
    logs.configure("error", stream=stream)
    logs.access(record())
    logs.access(record(status=503, error="queue_full", aborted=True))
    [line] = lines(stream)
    assert (line["level"], line["error"], line["aborted"]) == ("error", "queue_full", True)


async def test_requests_side_by_side_keep_their_ids_apart() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)

    async def one(name: str) -> None:
        logs.bind(request_id=name)
        await asyncio.sleep(0)
        logs.log("x").info("step", own=name)

    await asyncio.gather(*(asyncio.create_task(one(f"r{i}")) for i in range(5)))
    assert all(line["request_id"] == line["own"] for line in lines(stream))
    assert len(lines(stream)) == 5


def test_libraries_write_in_the_same_form() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logging.getLogger("uvicorn.error").warning("port %d is taken", 80)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("some.library").exception("failed")
    first, second = lines(stream)
    assert (first["event"], first["logger"]) == ("port 80 is taken", "uvicorn.error")
    assert "ValueError: boom" in second["exception"]


def test_a_console_is_for_people() -> None:
    stream = io.StringIO()
    logs.configure(format="console", stream=stream)
    logs.log("x").info("hello")
    with pytest.raises(json.JSONDecodeError):
        lines(stream)
    assert "hello" in stream.getvalue()
