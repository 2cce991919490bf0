"""One vLLM engine on a tiny random Llama, shared by every test of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engines.registry import build
from engines.vllm.engine import VllmEngine
from tests.checkpoints import CONTEXT, make_llama

MORE_END = 255  # beside the tokenizer's own
ARGS = {"dtype": "float32", "max_model_len": CONTEXT}


def made(name: str, model: Path, **args: object) -> VllmEngine:
    """An engine that is not started yet."""
    spec = {"kind": "vllm", "model": str(model), "engine_args": {**ARGS, **args}}
    engine = build(name, spec)
    assert isinstance(engine, VllmEngine)
    return engine


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama on disk, with two tokens that end its answers."""
    return make_llama(tmp_path_factory.mktemp("llama"), ends=[MORE_END])


@pytest.fixture(scope="session")
async def vllm(llama: Path) -> AsyncIterator[VllmEngine]:
    engine = made("vllm", llama)
    await engine.start()
    yield engine
    await engine.stop()
    assert engine.running == 0
