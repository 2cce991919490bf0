"""A run of the bench from its command line on: what ends early, what is written, what is named."""

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import httpx
import pytest

from clients.bench import command, counters, result
from clients.bench.arm import read
from clients.bench.command import Asked
from clients.bench.driver import Driver, LoadFailed
from clients.bench.load import Load
from clients.bench.prompts import Prompt
from clients.bench.result import Result
from clients.bench.sweep import Sweep, Target, measuring
from tests.clients.bench.records import point, record

URL = "http://127.0.0.1:9"
DRY = {"decoding": {"strategy": "plain"}, "messages": [], "stream": True}


def test_a_file_that_fails_in_the_end_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    def measured(*_: object) -> Result:
        folder.rmdir()
        return Result([point(record(0), record(1))])

    monkeypatch.setattr(command, "measured", measured)
    html = tmp_path / "x.html"
    assert command.run(Asked(), "http://127.0.0.1:9", folder / "x.json", html) == 1
    assert "bench: --json: " in capsys.readouterr().out
    assert "plain" in html.read_text()


class Loads(Driver):
    """Answers every request of so many jobs, then ends as a killed process does."""

    def __init__(self, jobs: float) -> None:
        super().__init__(Popen(["true"], stdin=PIPE, stdout=PIPE, text=True))
        self._left = jobs

    def run(
        self, job: Mapping[str, Any], heard: Callable[[dict[str, Any]], None]
    ) -> dict[str, float]:
        if not self._left:
            raise LoadFailed("the load generator ended with status -9")
        self._left -= 1
        for i in range(len(job["requests"])):
            heard({**record(i).as_json(), "sent": float(i)})
        return {"late_s": 0.0}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the bench with a load that lasts so many jobs, on a server that says as little."""

    def started(jobs: float, asked: Asked, out: Path, html: Path | None = None) -> int:
        @contextmanager
        def driver(_: str) -> Iterator[Driver]:
            yield Loads(jobs)

        monkeypatch.setattr(command, "driver", driver)
        monkeypatch.setattr(command, "predicting", lambda *_: lambda _: None)
        monkeypatch.setattr(command, "counted", lambda *_: None)
        return command.run(asked, URL, out, html)

    return started


ASKED = Asked(("plain", "none"), "1,2", n=5, warmup=0, rounds=2, model="m")


def test_what_was_measured_outlives_a_load_that_dies(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, html = tmp_path / "x.json", tmp_path / "x.html"
    assert run(3, ASKED, out, html) == 1
    found = result.read(out)
    assert [one.name for one in found.points] == ["plain x1", "none x1", "plain x2"]
    assert all(len(one.records) == 5 for one in found.points)
    assert found.ended_early == "the load generator ended with status -9"
    assert "ended early: the load generator" in capsys.readouterr().out
    assert "status -9" in html.read_text()


def test_a_round_that_dies_costs_none_before_it(run: Callable[..., int], tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    assert run(5, ASKED, out) == 1
    found = {one.name: len(one.records) for one in result.read(out).points}
    assert found == {"plain x1": 5, "none x1": 10, "plain x2": 5, "none x2": 5}


def test_what_ends_well_says_so(run: Callable[..., int], tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    assert run(8, ASKED, out) == 0
    assert result.read(out).ended_early == ""


def test_nothing_measured_writes_nothing(run: Callable[..., int], tmp_path: Path) -> None:
    assert run(0, ASKED, tmp_path / "x.json") == 1
    assert not (tmp_path / "x.json").exists()


def test_a_command_can_be_pasted(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = ["vote=>parallel_thinking:paths=2", '{"strategy": "hex"}']
    given = ["bench", "--strategy", arms[0], "--strategy", arms[1]]
    argv = ["/somewhere/bin/satisfice", *given]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", ["/somewhere/bin/python", *argv])
    run(1, Asked(arms, n=5, warmup=0, model="m"), tmp_path / "x.json")
    told = result.read(tmp_path / "x.json").about["command"]
    assert shlex.split(told) == ["satisfice", *given]


def test_a_round_whose_counters_are_unknown_is_in_no_mean() -> None:
    """The server has waited a thousand seconds before; this sweep's ten requests wait one each."""
    name = ("satisfice_queue_wait_seconds_sum", inf)
    scrapes: list[counters.Counted | None] = [None, {name: 1005.0}, {name: 1005.0}, {name: 1010.0}]
    asked = [Prompt("p", "?")] * 5
    sweep = Sweep([read("plain")], [Load("x1", concurrent=1)], asked, warmup=0, rounds=2)
    target, load = Target(URL, "m"), Loads(inf)
    rounds = measuring(sweep, target, load, lambda *_: None, None, lambda: scrapes.pop(0))
    assert [dict(one.server) for one in rounds] == [{}, {"queue_ms": 1000}]


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.Response(503),
        httpx.Response(200, text="<html>"),
    ],
    ids=["connect", "timeout", "busy", "page"],
)
def test_a_dry_run_that_fails_says_nothing(fault: Exception | httpx.Response) -> None:
    said = {"expected": {"seen": 3, "generated_tokens": 12.5}}
    answers = [fault, httpx.Response(200, json=said)]

    def answer(_: httpx.Request) -> httpx.Response:
        one = answers.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        predict = command.predicting(http, URL)
        assert [predict(DRY), predict(DRY)] == [None, 12.5]
