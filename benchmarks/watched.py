"""A server watched from outside: its metrics, its memory, its access log.

Whoever asks runs on the last core alone. It does not know what is measured with it.
"""

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from clients.local import Local, free_port, serving


@contextmanager
def pinned(
    console: Console, settings: Mapping[str, Any] | None, apart: bool = False
) -> Iterator[Local]:
    """The server with these settings (None: the built-in ones).

    This process and what it starts get the last core, until the end. `apart`: the server has all
    others; without it all cores, since an engine and the server around it want one each.
    """
    cores = sorted(os.sched_getaffinity(0))
    ours = cores[-1:]
    its = cores[:-1] or cores if apart else cores
    port = free_port()
    with TemporaryDirectory() as folder:
        command = ["taskset", "-c", ",".join(map(str, its))]
        command += [sys.executable, "-m", "satisfice", "serve", "--port", str(port)]
        if settings is not None:
            config = Path(folder) / "config.yaml"
            config.write_text(yaml.safe_dump(dict(settings)))
            command += ["--config", str(config)]
        os.sched_setaffinity(0, ours)
        try:
            with serving(console, command, f"http://127.0.0.1:{port}") as local:
                yield local
        finally:
            os.sched_setaffinity(0, cores)


def gauges(url: str) -> dict[str, float]:
    """Every sample of /metrics, this project's or vLLM's, summed over labels.

    But an engine figure's name is kept: it comes out as `engine:NAME`.
    """
    found: dict[str, float] = {}
    text = httpx.get(f"{url}/metrics", timeout=30).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix("satisfice_")
            if name == "engine_figure":
                name = f"engine:{sample.labels['figure']}"
            found[name] = found.get(name, 0.0) + sample.value
    return found


def memory(url: str) -> tuple[float, float]:
    """MB of the server's own process, and of all processes below it."""
    port = urlsplit(url).port or 80
    owner = next(
        c.pid for c in psutil.net_connections("tcp")
        if c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN
    )  # fmt: skip
    server = psutil.Process(int(owner or 0))
    below = sum(process.memory_info().rss for process in server.children(recursive=True))
    return server.memory_info().rss / 1e6, below / 1e6


def accesses(log: Path) -> list[dict[str, Any]]:
    """The access lines of a server's log that are of completions."""
    lines = log.read_text("utf-8", "replace").splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return [
        one for one in told
        if one.get("logger") == "access" and str(one.get("endpoint", "")).endswith("completions")
    ]  # fmt: skip


@dataclass
class Watch:
    """Samples what `look` gives every so often, in a thread, while it is open."""

    look: Any
    every: float
    seen: list[Any] = field(default_factory=list)

    def __enter__(self) -> "Watch":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            self.seen.append(self.look())

    def __exit__(self, *fault: object) -> None:
        self._stop.set()
        self._thread.join()
