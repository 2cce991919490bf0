"""vLLM's executors, tied to the server: an engine ends with the process that started it.

A server that is killed cannot stop its engines, and vLLM's own would wait for requests for ever,
holding their memory. An executor is made in the engine's process before the model is loaded, so
it holds there without anything installed. It knows no model and no request.
"""

import os

import torch
from vllm.config import ParallelConfig
from vllm.platforms import current_platform
from vllm.v1.executor.abstract import Executor
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from engines.vllm.plugin import register

FEW_CORES = 2


class TiedUniProcExecutor(UniProcExecutor):
    """One worker, in the engine's own process."""

    def _init_executor(self) -> None:
        register()
        if current_platform.is_cpu():
            torch.set_num_threads(1)  # the other core is the server's
        super()._init_executor()


class TiedMultiprocExecutor(MultiprocExecutor):
    """Workers in processes of their own, which end with the engine's."""

    def _init_executor(self) -> None:
        register()
        super()._init_executor()


def join_worker(parallel: ParallelConfig) -> None:
    """Puts the worker into the engine's process where a CPU has two cores or fewer.

    vLLM gives a worker on a CPU a process of its own, to bind its threads. It and the engine's ask
    each other all the time for the next step, so with two cores what answers requests gets none:
    streams come when they are whole. Steps never overlap on a CPU, so nothing is lost.
    """
    few = len(os.sched_getaffinity(0)) <= FEW_CORES
    bound = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "auto") != "auto"
    if current_platform.is_cpu() and parallel.world_size == 1 and few and not bound:
        parallel.distributed_executor_backend = "uni"


def tied(executor: type[Executor]) -> type[Executor]:
    """The tied kind of `executor`; itself if it is none of vLLM's two local ones (Ray's)."""
    ties = {UniProcExecutor: TiedUniProcExecutor, MultiprocExecutor: TiedMultiprocExecutor}
    return ties.get(executor, executor)


# A spawned engine reads this module before it does anything else, so it is tied from then on.
register()
