"""What a vLLM engine says of itself, for /metrics: gauges and counters by short name.

Read from the statistics that the engine sends with each step. It knows neither requests nor HTTP.
"""

from typing import Any

from vllm.v1.metrics.loggers import PrometheusStatLogger


class Figures(PrometheusStatLogger):
    """Keeps the last gauges and adds up the counters; vLLM calls `record` once a step.

    It stands in the place of vLLM's own metrics, which would cost time at each step and share one
    registry among all engines of a process.
    """

    def __init__(self, vllm_config: Any, engine_indexes: list[int] | None = None) -> None:
        """As vLLM makes it; nothing of what it replaces is set up."""
        self.values = dict.fromkeys(
            (
                "requests_running",
                "requests_waiting",
                "kv_cache_usage",
                "prefix_cache_queries_total",
                "prefix_cache_hits_total",
                "prompt_tokens_total",
                "generated_tokens_total",
                "preemptions_total",
            ),
            0.0,
        )

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """One step's statistics; either part may be missing."""
        values = self.values
        if scheduler_stats is not None:
            values["requests_running"] = scheduler_stats.num_running_reqs
            values["requests_waiting"] = (
                scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            )
            values["kv_cache_usage"] = scheduler_stats.kv_cache_usage
            cache = scheduler_stats.prefix_cache_stats
            values["prefix_cache_queries_total"] += cache.queries
            values["prefix_cache_hits_total"] += cache.hits
        if iteration_stats is not None:
            values["prompt_tokens_total"] += iteration_stats.num_prompt_tokens
            values["generated_tokens_total"] += iteration_stats.num_generation_tokens
            values["preemptions_total"] += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        """Nothing to say."""

    def record_sleep_state(self, sleep: int = 0, level: int = 0) -> None:
        """Not kept."""

    def record_admission_rejection(self, reason: str) -> None:
        """Not kept: whoever is refused is told."""


def figures_of(llm: Any) -> dict[str, float]:
    """What `llm` (vLLM's engine) has counted since it started."""
    kept = next(one for one in llm.logger_manager.stat_loggers if isinstance(one, Figures))
    return dict(kept.values)
