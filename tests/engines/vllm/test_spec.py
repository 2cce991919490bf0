"""The configuration: what is refused before anything is loaded, and what is filled in."""

import os
from pathlib import Path

import pytest

from engines.base import EngineError
from engines.registry import build, kinds
from engines.vllm.spec import ENVIRONMENT, Spec, cpu_defaults, engine_args, prepare_environment
from tests.engines.vllm.conftest import made


def test_an_unknown_key_is_named(llama: Path) -> None:
    with pytest.raises(ValueError, match="temperature"):
        build("x", {"kind": "vllm", "model": str(llama), "temperature": 1})
    with pytest.raises(ValueError, match=r"engine_args\.no_such_argument"):
        engine_args(Spec(model=str(llama), engine_args={"no_such_argument": 1}), 512)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"kind: 'oracle'.*vllm"):
        build("x", {"kind": "oracle"})
    assert "vllm" in kinds()


def test_what_the_operator_gives_stands(llama: Path) -> None:
    given = {"max_model_len": 128, "num_gpu_blocks_override": 32, "logprobs_mode": "raw_logprobs"}
    args = engine_args(Spec(model=str(llama), engine_args=given), 512)
    assert {name: getattr(args, name) for name in given} == given


def test_the_environment_is_filled_in_where_the_operator_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent, said = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "VLLM_CPU_KVCACHE_SPACE"
    monkeypatch.setattr(os, "environ", {said: "7"})
    prepare_environment()
    assert os.environ[said] == "7"
    assert os.environ[silent] == ENVIRONMENT[silent]


@pytest.mark.parametrize("length", [64, 512, 4096, 32768])
def test_the_defaults_fit_the_context(length: int) -> None:
    found = cpu_defaults({"max_model_len": length}, 999_999)
    assert found["max_num_batched_tokens"] >= found["max_model_len"] == length
    tokens = found["num_gpu_blocks_override"] * found["block_size"]
    assert tokens >= 4 * length, "four requests of full length fit at once"


@pytest.mark.parametrize(
    "args", [{"enable_chunked_prefill": True}, {"max_num_batched_tokens": 256}], ids=str
)
async def test_what_seeds_would_crash_is_refused(llama: Path, args: dict[str, int]) -> None:
    with pytest.raises(EngineError, match=next(iter(args))):
        await made("x", llama, **args).start()
