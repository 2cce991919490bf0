"""The sending process as its parent sees it: started once, given jobs, heard while it works.

Knows the lines it speaks (`drive`), no figures.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 5.0


class LoadFailed(Exception):
    """The sending process ended; the text says what it last said."""


class Driver:
    """Sends one job after another."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._in: IO[str] = process.stdin  # type: ignore[assignment]
        self._out: IO[str] = process.stdout  # type: ignore[assignment]

    def run(
        self, job: Mapping[str, Any], heard: Callable[[dict[str, Any]], None]
    ) -> dict[str, float]:
        """Sends a job's requests; `heard` gets each record as it ends. Raises LoadFailed."""
        self._in.write(json.dumps(job) + "\n")
        self._in.flush()
        while True:
            line = self.next()
            if "end" in line:
                end: dict[str, float] = line["end"]
                return end
            heard(line)

    def next(self) -> dict[str, Any]:
        """The next line. Raises LoadFailed."""
        line = self._out.readline()
        if not line:
            raise LoadFailed(f"the load generator ended with status {self._process.wait(10)}")
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def driver(python: str = sys.executable) -> Iterator[Driver]:
    """The process in the given interpreter, which must have vLLM; it is ready when this returns."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(
        [python, "-m", "clients.bench.drive"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    try:
        sending = Driver(process)
        sending.next()
        yield sending
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
