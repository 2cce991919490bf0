"""vLLM's executors, tied to the server: an engine ends with the process that started it.

A server that is killed cannot stop its engines, and vLLM's own would wait for requests for ever,
holding their memory. An executor is made in the engine's process before the model is loaded, so
it holds there without anything installed. It knows no model and no request.
"""

from vllm.v1.executor.abstract import Executor
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from engines.vllm.plugin import register


class TiedUniProcExecutor(UniProcExecutor):
    """One worker, in the engine's own process."""

    def _init_executor(self) -> None:
        register()
        super()._init_executor()


class TiedMultiprocExecutor(MultiprocExecutor):
    """Workers in processes of their own, which end with the engine's."""

    def _init_executor(self) -> None:
        register()
        super()._init_executor()


def tied(executor: type[Executor]) -> type[Executor]:
    """The tied kind of `executor`; itself if it is none of vLLM's two local ones (Ray's)."""
    ties = {UniProcExecutor: TiedUniProcExecutor, MultiprocExecutor: TiedMultiprocExecutor}
    return ties.get(executor, executor)


# A spawned engine reads this module before it does anything else, so it is tied from then on.
register()
