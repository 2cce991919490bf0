"""Rules of the public contract over HTTP: whose fault it is, where it is, and what it may cost.

What one endpoint does by itself stands beside it in tests/server/api.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from typing import Any

import pytest
import pytest_asyncio

from engines.table import Spec, TableEngine
from monitors.core.base import Message, Monitor, MonitorError, Score, Stage
from server.settings.spec import BudgetSpec, EngineSpec, KeySpec, MonitorSpec, Settings
from tests.server.api.live import SCRIPT, Live, chunks, engine, fault, running, settings, user
from tests.waiting import until

PARALLEL, BEST = "parallel_thinking", "best_of_n"


@pytest_asyncio.fixture(scope="module")
async def live() -> AsyncIterator[Live]:
    async with running(settings()) as started:
        yield started


@pytest.mark.parametrize(
    ("strategy", "params", "path"),
    [
        (BEST, {"monitor": 5}, "monitor"),
        (BEST, {"monitor": {"kind": "regex"}}, "monitor.pattern"),
        (BEST, {"monitor": {"kind": "exact", "answer": "1", "x": 1}}, "monitor.x"),
        (BEST, {"monitor": "nobody"}, "monitor"),
        (BEST, {"samples": "4"}, "samples"),
        (BEST, {"samples": True}, "samples"),
        (PARALLEL, {"weights": ""}, "weights"),
        (PARALLEL, {"early_stop": "yes"}, "early_stop"),
        (PARALLEL, {"path": {"strategy": "nothing"}}, "path.strategy"),
        (PARALLEL, {"path": {"strategy": "plain", "params": {"x": 1}}}, "path.params.x"),
        (PARALLEL, {"paths": 8, "thinking_budget": 7}, "thinking_budget"),
    ],
)
async def test_the_param_of_a_fault_is_the_path_of_its_field(
    live: Live, strategy: str, params: dict[str, Any], path: str
) -> None:
    response = await live.chat(decoding={"strategy": strategy, "params": params})
    assert fault(response, 400)["param"] == f"decoding.params.{path}"


class Starts(TableEngine):
    """Counts its starts."""

    starts = 0

    async def start(self) -> None:
        self.starts += 1
        await super().start()


def lazy(key: KeySpec) -> Settings:
    """A server whose engine starts at its first use, with one key, `few`."""
    cold = {"table": EngineSpec(kind="table", lazy=True)}
    return settings(keys={"few": key}).model_copy(update={"engines": cold})


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/v1/chat/completions", {"decoding": BEST}, 403),
        ("/v1/chat/completions", {"model": "tab@best_of_n"}, 403),
        ("/v1/chat/completions", {"model": "org/raw"}, 403),
        ("/v1/chat/completions", {"decoding": {"budget": {"max_generated_tokens": 11}}}, 403),
        ("/v1/chat/completions", {"decoding": {"params": {"x": 1}}}, 400),
        ("/tokenize", {"model": "org/raw"}, 403),
    ],
)
async def test_nothing_is_started_for_what_is_refused(
    path: str, fields: dict[str, Any], status: int
) -> None:
    key = KeySpec(
        hash=sha256(b"few").hexdigest(),
        strategies=["plain"],
        models=["tab"],
        budget=BudgetSpec(max_generated_tokens=10),
    )
    table = Starts("table", Spec(script=SCRIPT))
    async with running(lazy(key), table) as live:
        live.http.headers["authorization"] = "Bearer few"
        body = {"model": "tab", "messages": [user("hello")], **fields}
        fault(await live.http.post(path, json=body), status)
        assert table.starts == 0
        assert (await live.chat()).status_code == 200
        assert table.starts == 1


class Broken(Monitor):
    """Never answers."""

    name, kind, unit = "seven", "verifier", "pass"

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        raise MonitorError("it is away")


@pytest.mark.parametrize(
    ("configured", "asked", "outcome"),
    [
        ("block", None, "refused"),
        ("block", "block", "refused"),
        ("continue", None, "degraded"),
        ("continue", "continue", "degraded"),
        ("continue", "block", "refused"),
    ],
)
async def test_a_request_may_only_be_stricter_about_a_monitor_that_cannot_answer(
    configured: str, asked: str | None, outcome: str
) -> None:
    spec = MonitorSpec(kind="verifier", on_monitor_error=configured)
    own = settings().model_copy(update={"monitors": {"seven": spec}})
    decoding = {"strategy": BEST, "on_monitor_error": asked}
    async with running(own, monitor=Broken()) as live:
        choice = (await live.chat(decoding=decoding)).json()["choices"][0]
        streamed = chunks(await live.chat(decoding=decoding, stream=True))[-1]["choices"][0]
    assert choice["decoding"] == streamed["decoding"]
    assert choice["decoding"]["outcome"] == outcome
    assert "it is away" in choice["decoding"]["reason"]
    refused = outcome == "refused"
    assert choice["finish_reason"] == ("content_filter" if refused else "stop")
    assert (choice["message"]["refusal"] is not None) == refused
    assert (choice["message"]["content"] == "") == refused


async def test_a_dry_run_refuses_what_would_be_refused() -> None:
    async with running(settings(limits={"branches": 2, "rows": 4})) as live:
        decoding = {"strategy": BEST, "params": {"samples": 3}, "dry_run": True}
        assert fault(await live.chat(decoding=decoding), 400)["code"] == "too_many_branches"


async def test_an_estimate_stays_within_the_budget(live: Live) -> None:
    budget = {"max_branches": 4, "max_monitor_calls": 5, "max_generated_tokens": 50}
    decoding = {"strategy": BEST, "params": {"samples": 256}, "budget": budget}
    answer = await live.chat(decoding={**decoding, "dry_run": True}, n=2)
    estimate = answer.json()["estimate"]
    assert (estimate["rows"], estimate["monitor_calls"]) == (4, 5)
    assert estimate["generated_tokens"] == 50
    assert (await live.chat(decoding=decoding, n=2)).status_code == 200


async def test_the_trace_says_as_much_as_was_asked_for(live: Live) -> None:
    fixed, said = {"strategy", "outcome", "interventions", "branches", "held_back"}, {}
    for level in ("none", "summary", "full"):
        decoding = {"strategy": PARALLEL, "params": {"paths": 2}, "trace": level}
        choice = (await live.chat(decoding=decoding)).json()["choices"][0]
        said[level] = set(choice["decoding"])
    assert said["none"] == fixed
    assert said["summary"] > fixed
    assert said["full"] == {*said["summary"], "trace"}


def figure(text: str, name: str, strategy: str) -> float:
    """One of the server's figures, of the model `tab`."""
    start = f'satisfice_{name}{{model="tab",strategy="{strategy}"}} '
    return next(float(line[len(start) :]) for line in text.splitlines() if line.startswith(start))


async def test_a_waiting_stream_is_kept_alive() -> None:
    limits, table = {"rows": 1, "branches": 1}, engine(token_seconds=0.02)
    async with running(settings({"keep_alive_s": 0.1}, limits=limits), table) as live:
        body: dict[str, Any] = {"messages": [user("hm")], "max_tokens": 30, "ignore_eos": True}
        busy = asyncio.create_task(live.chat(**body))
        await until(lambda: live.engine.running == 1)
        waiting = await live.chat(**body, stream=True, decoding="extended_thinking")
        assert waiting.text.startswith(": keep-alive\n\n: keep-alive")
        assert len(chunks(waiting)) > 20
        assert (await busy).status_code == 200
        figures = (await live.http.get("/metrics")).text
        first = figure(figures, "first_token_seconds_sum", "extended_thinking")
        whole = figure(figures, "request_seconds_sum", "extended_thinking")
    assert 0.3 < first < whole - 0.3


async def test_the_first_token_is_no_event() -> None:
    async with running(settings(), engine(token_seconds=0.02)) as live:
        decoding = {"strategy": BEST, "params": {"samples": 2}, "stream_events": True}
        fields: dict[str, Any] = {"messages": [user("hm")], "max_tokens": 20, "ignore_eos": True}
        await live.chat(**fields, decoding=decoding, stream=True)
        figures = (await live.http.get("/metrics")).text
    assert figure(figures, "first_token_seconds_sum", BEST) > 0.3


async def test_forced_tokens_are_counted(live: Live) -> None:
    params = {"paths": 2, "thinking_budget": 10}
    answer = await live.chat(decoding={"strategy": PARALLEL, "params": params})
    assert answer.json()["choices"][0]["decoding"]["interventions"] > 0
    figures = (await live.http.get("/metrics")).text
    assert figure(figures, "forced_tokens_total", PARALLEL) >= 1


async def test_a_path_may_not_bring_in_a_forbidden_strategy() -> None:
    key = KeySpec(hash=sha256(b"few").hexdigest(), strategies=[PARALLEL])
    async with running(settings(keys={"few": key})) as live:
        live.http.headers["authorization"] = "Bearer few"
        decoding = {"strategy": PARALLEL, "params": {"path": {"strategy": BEST}}}
        error = fault(await live.chat(decoding=decoding), 403)
    assert error["param"] == "decoding.params.path.strategy"
