"""The reference engine's own: loading, refusing, ending; and transformers' own generation."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from engines import checkpoints, reference
from engines.base import EngineDeadError, EngineError, Finish, Sampling, UnsupportedError
from engines.reference import ReferenceEngine, build
from engines.table import byte_tokenizer
from tests.contracts.engine_calls import GREEDY, whole
from tests.waiting import until

EXTRA_END = 40  # a second end of sequence, from the generation configuration


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("llama")
    tokenizer = byte_tokenizer()
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 8,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = [tokenizer.eos_id, EXTRA_END]
    model.save_pretrained(path)
    tokenizer.hf.save_pretrained(path)
    return path


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[ReferenceEngine]:
    made = build("slow", {"kind": "reference", "model": str(folder)})
    await made.start()
    yield made
    await made.stop()


async def test_greedy_is_transformers_greedy(engine: ReferenceEngine, folder: Path) -> None:
    prompt = engine.tokenizer.encode("hello")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    limits = {"max_new_tokens": 40, "min_new_tokens": 40, "eos_token_id": None}
    theirs = model.generate(torch.tensor([prompt]), do_sample=False, pad_token_id=0, **limits)
    ours = await whole(engine, prompt, GREEDY, 40)
    assert ours.tokens == theirs[0, len(prompt) :].tolist()


async def test_every_end_of_sequence_ends_it(engine: ReferenceEngine) -> None:
    assert engine.ends == {engine.tokenizer.eos_id, EXTRA_END}
    pushed = Sampling(temperature=0, logit_bias={EXTRA_END: 100.0})
    found = await whole(engine, [1, 2], pushed, 5)
    assert (found.tokens, found.finish) == ([EXTRA_END], Finish.STOP)
    assert len((await whole(engine, [1, 2], pushed.but(ignore_eos=True), 5)).tokens) == 5


async def test_padding_ids_count_as_known(engine: ReferenceEngine) -> None:
    padding = len(engine.tokenizer) + 7
    assert await engine.next_logprobs([1, padding], 2)
    with pytest.raises(UnsupportedError):
        await engine.next_logprobs([1, padding + 1], 2)


async def test_stopping_ends_running_calls(engine: ReferenceEngine) -> None:
    tasks = [asyncio.create_task(whole(engine, [1], GREEDY, 120)) for _ in range(3)]
    await until(lambda: engine.running == 3)
    await engine.stop()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, EngineDeadError) for one in ended), ended
    assert engine.running == 0
    with pytest.raises(EngineDeadError):
        await engine.check()


async def test_stopping_in_the_middle_of_a_load_leaves_nothing_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build("slow", {"kind": "reference", "model": str(folder)})
    loading, go = threading.Event(), threading.Event()

    def held(*args: Any, **more: Any) -> Any:
        loading.set()
        assert go.wait(10)
        return checkpoints.loaded(*args, **more)

    monkeypatch.setattr(reference, "loaded", held)
    start = asyncio.create_task(engine.start())
    assert await asyncio.to_thread(loading.wait, 10)
    start.cancel()
    await asyncio.wait([start])
    stop = asyncio.create_task(engine.stop())
    await asyncio.sleep(0)
    go.set()
    await stop
    with pytest.raises(EngineDeadError):
        await engine.check()


async def test_what_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    engine = build("slow", {"kind": "reference", "model": str(tmp_path)})
    with pytest.raises(EngineError, match="slow"):
        await engine.start()
    with pytest.raises(EngineDeadError):
        await engine.check()


@pytest.mark.parametrize("spec", [{"kind": "reference"}, {"kind": "reference", "modle": "x"}])
def test_a_faulty_configuration_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        build("slow", spec)
