"""The built-in server as its users start it, and the environments of the outside clients."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from clients.local import Local, started

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def local() -> Iterator[Local]:
    """A server with the built-in models, started by its command."""
    with started(Console(stderr=True)) as running:
        yield running


@pytest.fixture(scope="session")
def server(local: Local) -> str:
    """Its URL."""
    return local.url


def run_in(name: str, *words: str, url: str) -> str:
    """Runs a command of the environment `.envs/NAME`; returns what it printed."""
    made = subprocess.run(["bash", str(ROOT / "scripts" / "outside"), name], check=False)
    assert made.returncode == 0, f"scripts/outside {name} failed"
    command = [str(ROOT / ".envs" / name / "bin" / words[0]), *words[1:]]
    environment = {**os.environ, "SERVER": url, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=240, cwd=ROOT,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
