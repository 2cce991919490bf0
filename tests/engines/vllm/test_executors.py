"""Where vLLM's worker runs: with its engine where cores are few, and nobody said otherwise."""

import os

import pytest

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize(
    ("cores", "bound", "workers", "chosen"),
    [
        (1, None, 1, "uni"),
        (2, None, 1, "uni"),
        (2, "auto", 1, "uni"),
        (2, "nobind", 1, "mp"),
        (2, "0", 1, "mp"),
        (3, None, 1, "mp"),
        (2, None, 2, "mp"),
    ],
)
def test_a_worker_joins_its_engine_where_cores_are_few(
    monkeypatch: pytest.MonkeyPatch, cores: int, bound: str | None, workers: int, chosen: str
) -> None:
    from vllm.config import ParallelConfig

    from engines.vllm.executors import join_worker

    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    if bound is not None:
        monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", bound)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    parallel = ParallelConfig(tensor_parallel_size=workers, distributed_executor_backend="mp")
    join_worker(parallel)
    assert parallel.distributed_executor_backend == chosen
