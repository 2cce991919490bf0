"""Starting a server as a subprocess: what happens when it does not come up."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from clients.local import ServerFailed, free_port, probe, started

ROOT = Path(__file__).resolve().parents[2]


def test_a_server_that_ends_at_once_is_told_with_its_log() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120)
    began = time.monotonic()
    arguments = ["--no-such-option"]
    with pytest.raises(ServerFailed, match="ended with status 2"), started(console, arguments):
        pytest.fail("it cannot have started")
    assert time.monotonic() - began < 60
    assert "no-such-option" in out.getvalue()


ENDED = """
import os, signal, threading
from rich.console import Console
from clients.local import started
with started(Console(), ["--config", "CONFIG"]):
    os.kill(os.getpid(), signal.SIGNAL)
    threading.Event().wait(30)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_client_that_is_ended_takes_its_server_along(tmp_path: Path, how: signal.Signals) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("engines: {a: {kind: table}}\nmodels: {m: {engine: a}}\n")
    program = ENDED.replace("CONFIG", str(config)).replace("SIGNAL", how.name)
    client = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60)
    assert client.returncode == (128 + how if how is signal.SIGTERM else -how)
    until = time.monotonic() + 30
    while (left := running_with(config)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left


def running_with(config: Path) -> bool:
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    return str(config) in lines


def test_a_server_is_reached_and_stopped(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("engines: {a: {kind: table}}\nmodels: {m: {engine: a}}\n")
    with started(Console(file=io.StringIO()), ["--config", str(config)]) as local:
        listed = httpx.get(f"{local.url}/v1/models").json()
        assert listed["data"][0]["id"] == "m"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{local.url}/health")


def test_nothing_listens_yet() -> None:
    assert probe(f"http://127.0.0.1:{free_port()}") == (False, "loading, not listening yet")
