"""The configuration of a vLLM engine, and what this project adds to it where it is silent.

On a CPU vLLM's own defaults end in a crash (seeds with chunked prefill) or take gigabytes, so the
blanks are filled in here. vLLM itself is imported when an engine starts, not before.
"""

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from engines.base import GENERATING, Capability
from engines.vllm.plugin import SERVER

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Its warnings at start-up repeat what is chosen here; errors are shown.
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore::FutureWarning:vllm.triton_utils.dispatcher",
    # On a CPU every number of tokens in a step is a shape of its own, and oneDNN keeps the kernels
    # of the last thousand: half a gigabyte a process, filled over hours. Making one again is quick.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
    # Engines begin in threads, where a fork copies locks that nobody will open.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
# Eager on a CPU still compiles one function when log-probabilities are first asked for, which
# holds up every request for half a minute.
CPU_ENVIRONMENT = {"TORCH_COMPILE_DISABLE": "1"}
CPU_CONTEXT = 4096
CPU_BLOCK = 32  # tokens; vLLM's own 128 would make a restart from a prefix recompute more
CPU_TOKENS = 32768  # of KV cache, for all requests together
CPU_ROWS = 64


class Spec(BaseModel):
    """`{kind: vllm, model: PATH_OR_ID, engine_args: {...}}`; engine_args go to vLLM as they are.

    `engine_args: {runner: pooling}` serves a reward model or another classifier, for monitors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    capabilities: ClassVar = GENERATING - {Capability.DIFFUSION}

    kind: Literal["vllm"] = "vllm"
    model: str
    tokenizer: str | None = None
    engine_args: dict[str, Any] = Field(default_factory=dict)
    lazy: bool = False

    @property
    def pools(self) -> bool:
        """Whether its model has labels in the place of a next token."""
        return self.engine_args.get("runner") == "pooling"


def prepare_environment() -> None:
    """Sets what vLLM reads when it is imported, where the operator has not."""
    _set_defaults(ENVIRONMENT)
    os.environ[SERVER] = str(os.getpid())


def _set_defaults(environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        os.environ.setdefault(name, value)


def engine_args(spec: Spec, context: int) -> "AsyncEngineArgs":
    """vLLM's arguments; `context` is the model's own. Raises ValueError naming an unknown key."""
    from vllm import AsyncEngineArgs
    from vllm.platforms import current_platform

    known = {field.name for field in fields(AsyncEngineArgs)}
    unknown = sorted(set(spec.engine_args) - known)
    if unknown:
        raise ValueError(f"engine_args.{unknown[0]}: vLLM has no such engine argument")
    given: dict[str, Any] = {
        "model": spec.model,
        "tokenizer": spec.tokenizer,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "max_logprobs": -1,
        # Those of the distribution that drew the token, after masks, temperature and filters.
        "logprobs_mode": "processed_logprobs",
        # Compact JSON: a small model may otherwise write white space up to its limit.
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        **spec.engine_args,
    }
    if current_platform.is_cpu():
        given = {**cpu_defaults(given, context), **given}
        if given["enforce_eager"]:
            _set_defaults(CPU_ENVIRONMENT)
        _refuse_seeds_with_chunks(given)
    return AsyncEngineArgs(**given)


def cpu_defaults(given: Mapping[str, Any], context: int) -> dict[str, Any]:
    """Arguments under which seeds are safe, start-up is short and the KV cache small."""
    length = int(given.get("max_model_len") or min(context, CPU_CONTEXT))
    block = int(given.get("block_size") or CPU_BLOCK)
    return {
        "max_model_len": length,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(length, 2048),
        "max_num_seqs": CPU_ROWS,
        "block_size": block,
        "num_gpu_blocks_override": -(-max(CPU_TOKENS, 4 * length) // block),
    }


def _refuse_seeds_with_chunks(given: Mapping[str, Any]) -> None:
    """A seeded request in a chunked prefill kills the CPU engine for everybody."""
    if given.get("enable_chunked_prefill"):
        raise ValueError("engine_args.enable_chunked_prefill: kills the CPU engine with seeds")
    length, batch = int(given["max_model_len"]), int(given["max_num_batched_tokens"])
    if batch < length:
        raise ValueError(
            f"engine_args.max_num_batched_tokens: {batch} is less than max_model_len {length}, "
            "which chunks prefills and kills the CPU engine with seeds"
        )
