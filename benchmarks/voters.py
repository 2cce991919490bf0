"""Servers that let several samples vote: this one, and gateways over vLLM's server.

Starts all of them over one checkpoint with the same engine arguments. It does not know what they
are compared by.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from benchmarks.servers import both
from benchmarks.watched import gauges
from clients.local import free_port, serving

ROOT = Path(__file__).resolve().parent.parent
ANSWER = r"The answer is (-?[0-9][0-9,./]*)"
ALONE = {"OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1"}
THINK = ("<think>", "</think>")
LONGEST = 512
"""Tokens of a sample at most. its_hub passes no limit of a request on, so vLLM's server has it."""
ENGINE = {"dtype": "float32", "override_generation_config": {"max_new_tokens": LONGEST}}


@dataclass(frozen=True)
class Voter:
    """Who is asked: `samples` votes for each answer, by fields of the request or of its own.

    `engine` is the URL whose metrics count what is generated.
    """

    name: str
    url: str
    model: str
    engine: str
    samples: int
    body: Mapping[str, Any] = field(default_factory=dict)

    def generated(self) -> float:
        """Tokens that the engine has generated so far, whoever asked."""
        return counted(self.engine)["generated"]

    def busy(self) -> float:
        """Requests that the engine has not ended."""
        return counted(self.engine)["busy"]


def counted(url: str) -> dict[str, float]:
    """`generated` tokens and `busy` requests, of this project's server or of vLLM's."""
    now = gauges(url)
    if "engine:generated_tokens_total" in now:
        busy = now["engine:requests_running"] + now["engine:requests_waiting"]
        return {"generated": now["engine:generated_tokens_total"], "busy": busy}
    busy = now["vllm:num_requests_running"] + now["vllm:num_requests_waiting"]
    return {"generated": now["vllm:generation_tokens_total"], "busy": busy}


@contextmanager
def voters(checkpoint: Path, console: Console) -> Iterator[list[Voter]]:
    """All of them, ready; stopped at the end."""
    with ExitStack() as stack:
        ours, vllm = stack.enter_context(both(checkpoint, console, THINK, ENGINE))
        optillm = stack.enter_context(_gateway(console, _optillm(vllm.url)))
        its = stack.enter_context(_gateway(console, _its_hub()))
        _configure(its, vllm.url, vllm.model)
        yield [
            Voter("one sample", vllm.url, vllm.model, vllm.url, 1),
            Voter("parallel_thinking, 8", ours.url, ours.model, ours.url, 8, own(8)),
            Voter("parallel_thinking, 5", ours.url, ours.model, ours.url, 5, own(5)),
            Voter("its_hub, 8", its, vllm.model, vllm.url, 8, {"budget": 8}),
            Voter("optillm majority_voting, 8", optillm, f"majority_voting-{vllm.model}",
                  vllm.url, 8, {"k": 8}),
            Voter("optillm self_consistency, 5", optillm, f"self_consistency-{vllm.model}",
                  vllm.url, 5),
        ]  # fmt: skip


def own(paths: int) -> dict[str, Any]:
    """This server's vote of so many."""
    return {"decoding": {"strategy": "parallel_thinking", "params": {"paths": paths}}}


@contextmanager
def _gateway(console: Console, command: Sequence[str]) -> Iterator[str]:
    """One of them on a port of its own; its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serving(console, [*command, "--port", str(port)], url, _listens, ALONE) as local:
        yield local.url


def _listens(url: str) -> tuple[bool, str]:
    try:
        httpx.get(f"{url}/v1/models", timeout=5)
    except httpx.HTTPError:
        return False, "loading, not listening yet"
    return True, "listening"


def _optillm(vllm: str) -> list[str]:
    python = ROOT / ".envs" / "optillm" / "bin" / "python"
    return [
        str(python),
        "-c",
        "from optillm.server import main; main()",
        "--base-url",
        f"{vllm}/v1",
    ]


def _its_hub() -> list[str]:
    return [str(ROOT / ".envs" / "its_hub" / "bin" / "its-iaas"), "--log-level", "WARNING"]


def _configure(url: str, vllm: str, model: str) -> None:
    """Tells its_hub where the model is and what an answer looks like."""
    told = {
        "endpoint": f"{vllm}/v1", "api_key": "none", "model": model, "alg": "self-consistency",
        "regex_patterns": [ANSWER], "budget": 8, "temperature": 1.0,
    }  # fmt: skip
    httpx.post(f"{url}/configure", json=told, timeout=30).raise_for_status()
