"""The server as a process: it says when it is up, drains on SIGTERM, and ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.process import ROOT, Process, listening, serving

REASONER = ROOT / "testbed" / "weights" / "reasoner"
CONFIG = """
server: {drain_s: 5, log_format: json}
engines: {slow: {kind: table, token_seconds: 0.02}}
models: {tab: {engine: slow}}
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[str, Process]]:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    with serving(config) as started:
        yield started


def complete(url: str, tokens: int) -> dict[str, Any]:
    body = {"model": "tab", "prompt": "x", "max_tokens": tokens, "ignore_eos": True}
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        found: dict[str, Any] = json.load(response)
        return found


def busy(url: str) -> None:
    """Returns once the server is at work on a request."""
    for _ in range(1000):
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
            if b"\nsatisfice_running_requests 1" in response.read():
                return
        time.sleep(0.01)
    raise TimeoutError("no request came")


def test_it_drains_on_sigterm(process: tuple[str, Process]) -> None:
    url, server = process
    found: list[dict[str, Any]] = []
    running = threading.Thread(target=lambda: found.append(complete(url, 100)))
    running.start()
    busy(url)
    os.kill(server.pid, signal.SIGTERM)
    time.sleep(0.2)
    with pytest.raises(urllib.error.HTTPError) as refused:
        complete(url, 1)
    assert refused.value.code == 503
    assert refused.value.headers["retry-after"]
    assert json.load(refused.value)["error"]["code"] == "overloaded"
    running.join(10)
    assert found
    assert found[0]["usage"]["completion_tokens"] == 100
    assert server.wait(10) == 0


def test_a_second_signal_ends_at_once(process: tuple[str, Process]) -> None:
    url, server = process
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            complete(url, 3000)
        except (urllib.error.URLError, ConnectionError, OSError, ValueError) as fault:
            ended.append(fault)

    running = threading.Thread(target=ask)
    running.start()
    busy(url)
    server.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert server.poll() is None
    server.send_signal(signal.SIGTERM)
    server.wait(6)
    running.join(5)
    assert ended


def test_a_wrong_configuration_ends_with_its_faults(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("models: {tab: {engine: none}}\n", encoding="utf-8")
    code = f"from server.main import run; raise SystemExit(run(config={str(config)!r}))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "models.tab.engine" in ran.stderr


def test_it_listens_while_its_engines_load_and_ends_if_one_cannot(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"engines:\n  main: {{kind: vllm, model: {REASONER}}}\nmodels: {{m: {{engine: main}}}}\n",
        encoding="utf-8",
    )
    with listening(config) as (url, server):
        with urllib.request.urlopen(f"{url}/health", timeout=10) as response:
            assert response.status == 200
        with pytest.raises(urllib.error.HTTPError) as waiting:
            urllib.request.urlopen(f"{url}/ready", timeout=10)
        assert waiting.value.code == 503
        assert json.load(waiting.value)["engines"] == {"main": "starting"}
        server.send_signal(signal.SIGTERM)
        assert server.wait(180) == 0


def test_an_engine_that_cannot_start_ends_the_server(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "engines:\n  far: {kind: remote, url: 'http://127.0.0.1:9/v1', model: m, tokenizer: "
        f"{REASONER}}}\nmodels: {{m: {{engine: far}}}}\n",
        encoding="utf-8",
    )
    code = f"from server.main import run; raise SystemExit(run(config={str(config)!r}, port=0))"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 1
    assert "could not start far" in ran.stderr
