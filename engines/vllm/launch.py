"""Begins and ends vLLM's engine: its configuration, its processes, its voice in the logs.

Both block for seconds, so they run in threads; several engines may begin side by side. It knows
neither requests nor sampling.
"""

import logging
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

from engines.auto import transformers
from engines.vllm.spec import Spec, engine_args, prepare_environment

if TYPE_CHECKING:
    from engines.vllm.llm import Llm

STOP_SECONDS = 5.0  # for an engine to end before it is killed
WORKER_SECONDS = 1.0  # for its workers, which otherwise collect garbage for eight
_configuring = threading.Lock()


class GivenUpError(Exception):
    """Nobody waits for the engine any more."""


def launched(spec: Spec, given_up: threading.Event) -> "Llm":
    """vLLM's engine, its model loaded. Raises what vLLM raises, or GivenUpError.

    `given_up` may be set at any time; whatever was begun is ended then.
    """
    prepare_environment()
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"].upper())
    # While it is configured vLLM imports lazily and writes the process's environment.
    with _configuring:
        if given_up.is_set():
            raise GivenUpError
        hugging_face = transformers()  # before vLLM asks for it
        from vllm import envs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.executor import Executor

        from engines.vllm.executors import join_worker, tied
        from engines.vllm.figures import Figures
        from engines.vllm.llm import Llm

        envs.disable_envs_cache()
        shape = hugging_face.AutoConfig.from_pretrained(spec.model, trust_remote_code=False)
        model = shape.get_text_config()
        args = engine_args(spec, getattr(model, "max_position_embeddings", 0) or 4096)
        config = args.create_engine_config(UsageContext.ENGINE_CONTEXT)
        _check_runner(spec, config.model_config)
        if spec.engine_args.get("distributed_executor_backend") is None:
            join_worker(config.parallel_config)
    llm = Llm(
        config,
        tied(Executor.get_class(config)),
        log_stats=not args.disable_log_stats,
        log_requests=args.enable_log_requests,
        stat_loggers=[Figures],
    )
    # It asks for the same variables at each token: 2 µs, cached a quarter of that.
    envs.enable_envs_cache()
    _speak_through_logging()
    if given_up.is_set():
        ended(llm)
        raise GivenUpError
    return llm


def _check_runner(spec: Spec, model: Any) -> None:
    """What the checkpoint is, as vLLM sees it, must be what the configuration says."""
    if model.runner_type == "pooling" and not spec.pools:
        raise ValueError("engine_args.runner: a model with labels needs `runner: pooling`")
    if spec.pools and model.convert_type == "embed":
        raise ValueError("engine_args.runner: its model has no labels to classify by")


def ended(llm: "Llm") -> None:
    """Ends the engine's processes, its workers too; returns when they are gone."""
    manager = llm.engine_core.resources.engine_manager
    cores = [made.pid for made in getattr(manager, "processes", ())]
    family = [one for core in cores for one in _family(core)]
    hasten = threading.Timer(WORKER_SECONDS, _killed, [[one for one in family if _works(one)]])
    hasten.start()
    llm.shutdown(timeout=STOP_SECONDS)
    hasten.cancel()
    # An engine that had to be killed could not end its workers.
    _, left = psutil.wait_procs(family, timeout=1.0)
    _killed(left)


def _works(process: psutil.Process) -> bool:
    """Whether it is a worker: neither a core nor a tracker, which frees what is shared."""
    with suppress(psutil.NoSuchProcess):
        words = " ".join(process.cmdline())
        return "EngineCore" not in words and "resource_tracker" not in words
    return False


def _killed(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _speak_through_logging() -> None:
    """vLLM's records in this process go where all others go, at the level set for it."""
    voice = logging.getLogger("vllm")
    voice.handlers.clear()
    voice.propagate = True
