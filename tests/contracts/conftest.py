"""Engines that the laws run over, each started once: all but the table on one tiny random model.

An ensemble's first member is that model; it speaks where no rule is asked for. The model's weights
are wide enough that greedy decoding does not fall into one token. Laws that compare engines need
them alive together, so they are not torn down between tests.
"""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.servers import healthy
from clients.local import free_port, serving
from engines import reference as reference_kind
from engines import remote as remote_kind
from engines import table as table_kind
from engines.base import Engine
from tests.checkpoints import CONTEXT, make_llama

VLLM_ARGS = {
    "dtype": "float32",
    "enforce_eager": True,
    "enable_chunked_prefill": False,
    "max_model_len": CONTEXT,
    "max_num_batched_tokens": 8 * CONTEXT,
    "num_gpu_blocks_override": 256,
    "max_logprobs": -1,
}
ENGINES = [
    "table",
    "reference",
    "reference_ensemble",
    pytest.param("vllm", marks=pytest.mark.vllm),
    pytest.param("ensemble", marks=pytest.mark.vllm),
    pytest.param("remote", marks=pytest.mark.vllm),
]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama in float32 over the table engine's byte tokenizer."""
    return make_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
async def table() -> AsyncIterator[Engine]:
    made = table_kind.build("table", {"kind": "table", "seed": 3, "max_context": CONTEXT})
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(scope="session")
async def reference(tiny: Path) -> AsyncIterator[Engine]:
    made = reference_kind.build("reference", {"kind": "reference", "model": str(tiny)})
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(scope="session")
async def vllm(tiny: Path) -> AsyncIterator[Engine]:
    from engines.registry import build

    made = build("vllm", {"kind": "vllm", "model": str(tiny), "engine_args": VLLM_ARGS})
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(scope="session")
def upstream(tiny: Path) -> Iterator[str]:
    """The address of vLLM's own server, in a process of its own."""
    port = free_port()
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in VLLM_ARGS.items() if v not in (True, False)]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags]
    command += ["--enforce-eager", "--no-enable-chunked-prefill", f"--port={port}"]
    command += ["--logprobs-mode=processed_logprobs"]
    command += [f"--model={tiny}", "--served-model-name=tiny", "--host=127.0.0.1"]
    # vLLM compiles the rank of a log-probability when it is first asked for: half a minute here.
    quick = {"TORCH_COMPILE_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    environment = {**quick, "VLLM_NO_USAGE_STATS": "1"}
    url = f"http://127.0.0.1:{port}"
    with serving(Console(stderr=True), command, url, healthy, environment) as local:
        yield local.url


@pytest.fixture(scope="session")
async def remote(upstream: str, tiny: Path) -> AsyncIterator[Engine]:
    spec = {"kind": "remote", "url": f"{upstream}/v1", "model": "tiny", "tokenizer": str(tiny)}
    made = remote_kind.build("remote", spec)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    found: Engine = request.getfixturevalue(request.param)
    return found
