"""vLLM's asynchronous engine with an end of its own.

It knows neither configuration nor requests.
"""

import sys

from vllm.v1.engine.async_llm import AsyncLLM


class Llm(AsyncLLM):
    """vLLM's engine, silent when Python itself ends: by then its modules are gone."""

    def __del__(self) -> None:
        if not sys.is_finalizing():
            super().__del__()
