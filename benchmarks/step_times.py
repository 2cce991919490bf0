"""Where the time of a step goes in an ensemble's worker: named by `worker_extension_cls`.

Wraps what runs there with clocks; nothing else changes. It knows no engine and no request.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

spent: defaultdict[str, float] = defaultdict(float)
"""Seconds by part; `steps` counts."""


class StepTimes:
    """Methods that vLLM's worker gets, to be called by `collective_rpc`."""

    model_runner: Any

    def watch_steps(self) -> None:
        """Begins to measure: the step as a whole, its rules, the logits that rules ask for."""
        from engines.vllm.ensemble import rows
        from engines.vllm.ensemble.processors import PolicyProcessor

        runner = self.model_runner
        runner.execute_model = timed("step", runner.execute_model)
        runner.sample_tokens = timed("step", runner.sample_tokens)
        apply: Any = PolicyProcessor.apply
        PolicyProcessor.apply = timed("rules", apply)  # type: ignore[method-assign]
        rows.masked = timed("members", rows.masked)

    def step_times(self) -> dict[str, float]:
        """What was spent since the last call, in seconds."""
        told = dict(spent)
        spent.clear()
        return told


def timed(part: str, inner: Callable[..., Any]) -> Callable[..., Any]:
    """`inner`, its time booked under `part`."""

    def outer(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            spent[part] += time.perf_counter() - began
            spent["steps"] += part == "rules"

    return outer
