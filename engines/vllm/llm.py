"""vLLM's asynchronous engine with an end of its own.

It knows neither configuration nor requests.
"""

import sys
from collections.abc import Callable

from vllm.v1.engine.async_llm import AsyncLLM


class Llm(AsyncLLM):
    """vLLM's engine, silent when Python itself ends: by then its modules are gone."""

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending():
            super().__del__()
