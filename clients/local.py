"""A server of our own for as long as a client needs it: started, waited for, stopped.

The server is the installed command, reached by HTTP like any other; nothing of it is imported.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

START_SECONDS = 600.0
STOP_SECONDS = 45.0
LINE_SECONDS = 10.0
LOG_LINES = 200
PR_SET_PDEATHSIG = 1
# Loaded before any child is made: between fork and exec there is little that may be done.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
Probe = Callable[[str], tuple[bool, str]]
"""Whether the server at an address is ready, and in words what it waits for."""


class ServerFailed(Exception):
    """The server did not come up; the text says how it ended."""


@dataclass(frozen=True)
class Local:
    """A running server: its address, its log, and its process if it was started here."""

    url: str
    log: Path
    pid: int | None = None

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])


@contextmanager
def started(
    console: Console,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Local]:
    """The server with `arguments` to `serve` (none: built-in models) on a free port of its own.

    Prints progress; raises `ServerFailed` if it does not become ready. Shows the server's log when
    that or anything within fails.
    """
    port = free_port()
    command = [sys.executable, "-m", "satisfice", "serve", *arguments, "--port", str(port)]
    with serving(console, command, f"http://127.0.0.1:{port}", environment=environment) as local:
        yield local


@contextmanager
def serving(
    console: Console,
    command: Sequence[str],
    url: str,
    ready: Probe | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Local]:
    """The same for any server's command that listens at `url`; `ready` says when it is up."""
    with tempfile.TemporaryDirectory(prefix="satisfice-") as folder:
        path = Path(folder) / "server.log"
        with path.open("wb") as log:
            # A session of its own, so that engine processes end with it whatever happens.
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**_environment(), **(environment or {})},
                start_new_session=True, preexec_fn=_tied,
            )  # fmt: skip
        local = Local(url, path, process.pid)
        try:
            _end_on_signal()
            _wait(console, process, local, ready or probe)
            yield local
        except Exception:
            # Whatever failed here may have its reason there.
            show_log(console, local)
            raise
        finally:
            _stop(process)


def _tied() -> None:
    """In the child: it is asked to end with the thread that made it, however that ends."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_on_signal() -> None:
    """Lets SIGTERM unwind the stack as Ctrl-C does, so that the server ends with its client."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _environment() -> dict[str, str]:
    """This process's, with the folder of the running code on the path of `-m satisfice`."""
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _wait(
    console: Console, process: "subprocess.Popen[bytes]", local: Local, ready_at: Probe
) -> None:
    """Returns when the probe says so; prints a line when a state changes and every few seconds."""
    began = told = time.monotonic()
    shown: str | None = None
    console.print("starting the server with its models (about a minute on two cores)")
    while time.monotonic() - began < START_SECONDS:
        if process.poll() is not None:
            raise ServerFailed(f"the server ended with status {process.returncode}")
        ready, state = ready_at(local.url)
        if state != shown or time.monotonic() - told > LINE_SECONDS:
            told, shown = time.monotonic(), state
            console.print(f"  {told - began:4.0f} s  {state}", highlight=False)
        if ready:
            return
        time.sleep(0.25)
    raise ServerFailed(f"the server was not ready after {START_SECONDS:.0f} s")


def show_log(console: Console, local: Local) -> None:
    """Prints the end of the server's log."""
    console.rule("the server's log")
    console.print(local.tail(), markup=False, highlight=False)
    console.rule()


def probe(url: str) -> tuple[bool, str]:
    """Whether the server is ready, and in words what it waits for."""
    try:
        answer = httpx.get(f"{url}/ready", timeout=5)
        body = answer.json()
    except (httpx.HTTPError, ValueError):
        return False, "loading, not listening yet"
    return answer.status_code == 200, _words(body)


def _words(body: Mapping[str, Any]) -> str:
    """`reasoner ready, reward starting` from what /ready says."""
    states = {**body.get("engines", {}), **body.get("monitors", {})}
    return ", ".join(f"{name} {state}" for name, state in states.items()) or "listening"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Asks it to drain and end, then ends it."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
