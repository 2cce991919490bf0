"""The server as a process of its own, for tests that need one."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Process = subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(config: Path) -> Iterator[tuple[str, Process]]:
    """A server for a configuration that is ready; ended whatever happens."""
    with _until(config, "/ready") as started:
        yield started


@contextmanager
def listening(config: Path) -> Iterator[tuple[str, Process]]:
    """A server that answers, though it may not be ready."""
    with _until(config, "/health") as started:
        yield started


@contextmanager
def _until(config: Path, path: str) -> Iterator[tuple[str, Process]]:
    port = free_port()
    code = (
        f"from server.main import run; raise SystemExit(run(None, {str(config)!r}, None, {port}))"
    )
    started = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            if answers(url + path):
                break
            assert started.poll() is None, "the server ended"
            time.sleep(0.05)
        yield url, started
    finally:
        started.kill()
        started.wait()


def answers(url: str) -> bool:
    """Whether it says 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False
