"""Starts two servers over the same checkpoint with the same engine arguments, pinned alike.

One is vLLM's own (`vllm serve` by its module, since the CPU wheel's command does not start), one is
this project's. It does not know what they are compared by.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml
from rich.console import Console

from clients.local import free_port, serving, started

ENGINE_ARGS = {
    "enforce_eager": True,
    "max_model_len": 2048,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 64,
    "enable_chunked_prefill": False,
    # Repeated prompts are found in the prefix cache by whole blocks: without a word vLLM's own
    # server takes 128 tokens on a CPU and finds none, where this one takes 32.
    "block_size": 32,
    "num_gpu_blocks_override": 1024,
    # vLLM's own server has its worker in a process of its own on any CPU; this one does not where
    # cores are few, which is no matter of servers.
    "distributed_executor_backend": "mp",
}
AS_IT_COMES: Mapping[str, Any] = {"distributed_executor_backend": None}
ALIKE = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class Server:
    """A server that answers on `url` under the model name `model`."""

    name: str
    url: str
    model: str


@contextmanager
def both(
    checkpoint: Path,
    console: Console,
    think: Sequence[str] | None = None,
    changes: Mapping[str, Any] | None = None,
    own: Mapping[str, Any] | None = None,
) -> Iterator[tuple[Server, Server]]:
    """This project's server and vLLM's, both ready; stopped at the end, whatever ends this one.

    `think`: the marks around the model's thinking, for this project's. `changes`: engine arguments
    beside the usual ones or in their place, for both; `own`: the same for this project's alone.
    """
    with ours(checkpoint, console, think, {**(changes or {}), **(own or {})}) as mine:
        port = free_port()
        url, command = f"http://127.0.0.1:{port}", _theirs(checkpoint, port, changes or {})
        with serving(console, command, url, healthy, ALIKE) as theirs:
            yield mine, Server("vllm", theirs.url, "model")


@contextmanager
def ours(
    checkpoint: Path,
    console: Console,
    think: Sequence[str] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Iterator[Server]:
    """This project's server alone."""
    with TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(yaml.safe_dump(_settings(checkpoint, think, changes or {})))
        with started(console, ["--config", str(config)], ALIKE) as own:
            yield Server("satisfice", own.url, "model")


def healthy(url: str) -> tuple[bool, str]:
    """vLLM's server listens once its model is loaded."""
    try:
        answer = httpx.get(f"{url}/health", timeout=5)
    except httpx.HTTPError:
        return False, "loading, not listening yet"
    return answer.status_code == 200, "listening"


def _settings(
    checkpoint: Path, think: Sequence[str] | None, changes: Mapping[str, Any]
) -> dict[str, Any]:
    arguments = {**ENGINE_ARGS, **changes}
    engine = {"kind": "vllm", "model": str(checkpoint), "engine_args": arguments}
    model = {"engine": "main", **({"think": list(think)} if think else {})}
    return {"engines": {"main": engine}, "models": {"model": model}}


def _theirs(checkpoint: Path, port: int, changes: Mapping[str, Any]) -> list[str]:
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    words += ["--model", str(checkpoint), "--served-model-name", "model"]
    words += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    for key, value in {**ENGINE_ARGS, **changes}.items():
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return words
