"""What runs in every process that vLLM starts: an engine ends with the server that started it, and
vLLM finds the model that hosts an ensemble.

A server that is killed cannot stop its engines, and vLLM's own would wait for requests for ever,
holding their memory. It knows no model and no request.
"""

import os
import sys
import time
from multiprocessing import current_process
from threading import Thread

EVERY_SECONDS = 1.0
ENSEMBLE = "PolicyEnsembleForCausalLM"
SERVER = "SATISFICE_SERVER_PID"  # set by whoever starts an engine; others below it inherit it
INIT = 1  # adopts a process whose parent has died


def register() -> None:
    """Called in each process of vLLM's, also more than once: through the `vllm.general_plugins`
    entry point, and by the executors' module.
    """
    global _registered
    if current_process().name.startswith("EngineCore") and not _registered:
        _registered = True
        parent = os.getppid()
        if parent == INIT and SERVER in os.environ:
            parent = int(os.environ[SERVER])  # killed at once, so no longer the parent by now
        Thread(target=_end_with, args=(parent,), name="end with parent", daemon=True).start()
    if "vllm" in sys.modules:  # who calls has it loaded; otherwise nobody looks for models
        _register_model()


_registered = False


def _register_model() -> None:
    from vllm import ModelRegistry

    if ENSEMBLE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ENSEMBLE, f"engines.vllm.ensemble.model:{ENSEMBLE}")


def _end_with(parent: int) -> None:
    # Asked again and again: what waits for a parent's end is set up too late for a server that
    # is killed while its engine loads.
    while os.getppid() == parent:
        time.sleep(EVERY_SECONDS)
    # Its workers see their pipe to this process close and end as well.
    os._exit(1)
