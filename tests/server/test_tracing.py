"""Spans for requests, engine calls and monitor calls; none, and no cost, unless configured."""

import gzip
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from engines.base import EngineError, Sampling
from engines.table import Failure, Spec, TableEngine
from monitors.core.base import Stage
from server import tracing
from server.fleet import Fleet
from server.settings import Settings

GREEDY = Sampling(temperature=0.0, ignore_eos=True)


@pytest.fixture
def spans() -> Iterator[Callable[[], list[ReadableSpan]]]:
    exporter = InMemorySpanExporter()
    tracing.configure(None, exporter=exporter)
    yield lambda: list(exporter.get_finished_spans())
    tracing.shutdown()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_off_it_is_one_shared_object() -> None:
    assert not tracing.enabled()
    assert tracing.span("a", x=1) is tracing.span("b")
    with tracing.request_span({"traceparent": "x"}) as span:
        span.set("x", 1)
    assert min(seconds_of_spans(10_000) for _ in range(5)) / 10_000 < 20e-6


def seconds_of_spans(count: int) -> float:
    """This thread's own time, whatever else runs."""
    started = time.thread_time()
    for _ in range(count):
        with tracing.span("a"):
            pass
    return time.thread_time() - started


def test_off_nothing_of_opentelemetry_s_sdk_is_imported() -> None:
    probe = "import sys, server.tracing as t; t.configure(None)\nwith t.span('a'): pass\n"
    probe += "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


async def test_off_the_fleet_leaves_engines_as_they_are(
    settings: Settings, fleet_of: Callable[..., Fleet]
) -> None:
    fleet = fleet_of(settings)
    await fleet.start()
    assert "generate" not in vars(fleet.engines["a"])
    await fleet.stop()


async def test_calls_stand_under_their_request(
    settings: Settings, fleet_of: Callable[..., Fleet], spans: Callable[[], list[ReadableSpan]]
) -> None:
    fleet = fleet_of(settings)
    await fleet.start()
    engine = fleet.engines["a"]
    prompt = engine.tokenizer.encode("hello")
    with tracing.request_span({}, model="mini", missing=None) as request:
        async with aclosing(engine.generate(prompt, GREEDY, 4)) as deltas:
            tokens = [token async for delta in deltas for token in delta.tokens]
        await engine.score(prompt, tokens)
        await fleet.monitors["seven"].score([], ["7"], Stage.ANSWER)
        request.set("outcome", "complete")
    await fleet.stop()
    by_name = {span.name: span for span in spans()}
    assert set(by_name) == {"engine.generate", "engine.score", "monitor.score", "request"}
    root = by_name.pop("request")
    assert attributes(root) == {"model": "mini", "outcome": "complete"}
    assert root.context is not None
    parents = {span.parent.span_id for span in by_name.values() if span.parent}
    assert parents == {root.context.span_id}
    assert attributes(by_name["engine.generate"]) == {
        "engine": "a",
        "kind": "table",
        "prompt_tokens": len(prompt),
        "generated_tokens": 4,
        "finish": "length",
    }


async def test_a_generation_that_is_given_up_ends_its_span_and_the_engine_s_work(
    settings: Settings, fleet_of: Callable[..., Fleet], spans: Callable[[], list[ReadableSpan]]
) -> None:
    fleet = fleet_of(settings)
    await fleet.start()
    engine = fleet.engines["a"]
    async with aclosing(engine.generate(engine.tokenizer.encode("x"), GREEDY, 50)) as deltas:
        await anext(deltas)
        await anext(deltas)
    assert engine.running == 0
    await fleet.stop()
    [span] = spans()
    assert (attributes(span)["finish"], attributes(span)["generated_tokens"]) == ("cancelled", 2)


async def test_a_fault_is_marked_without_its_text(
    settings: Settings, fleet_of: Callable[..., Fleet], spans: Callable[[], list[ReadableSpan]]
) -> None:
    broken = TableEngine("a", Spec(failure=Failure(kind="error", after=0)))
    fleet = fleet_of(settings, engines={"a": broken})
    await fleet.start()
    with pytest.raises(EngineError):
        await broken.next_logprobs(broken.tokenizer.encode("x"), 1)
    await fleet.stop()
    [span] = spans()
    assert not span.status.is_ok
    assert span.status.description == "EngineError"
    assert not span.events


def test_spans_arrive_at_the_configured_endpoint() -> None:
    received: list[tuple[str, str | None, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, self.headers["content-type"], body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        tracing.configure(f"http://127.0.0.1:{server.server_port}/v1/traces")
        with tracing.request_span({}, model="mini"):
            pass
        tracing.shutdown()
        server.shutdown()
    [(path, kind, body)] = received
    assert (path, kind) == ("/v1/traces", "application/x-protobuf")
    assert b"satisfice" in gunzipped(body)
    assert b"mini" in gunzipped(body)


def gunzipped(body: bytes) -> bytes:
    return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body


def test_a_caller_s_trace_is_taken_up(spans: Callable[[], list[ReadableSpan]]) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with tracing.request_span({"traceparent": f"00-{trace}-{parent}-01"}):
        pass
    [span] = spans()
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == trace
    assert f"{span.parent.span_id:016x}" == parent
