"""Sends a load with `vllm bench serve`'s own loop and tells of every request as it ends.

Runs as a process of its own, in an interpreter that has vLLM: jobs come in as JSON lines, one
record per request goes out, then the end of the job. When requests leave, how many at once and over
which connections is vLLM's; what is heard of each answer is `listening`'s. It knows no figures.
"""

import asyncio
import contextlib
import io
import json
import os
import random
import sys
import time
from email.utils import parsedate_to_datetime
from typing import IO, Any

import numpy as np

from clients.bench.listening import DIGITS, Heard, listen

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
BACKEND = "satisfice-bench"
BEAT = 0.05
"""Seconds between two looks at how late the event loop is."""


class Listener:
    """A backend of `vllm bench serve` that keeps all it hears of each request of one job."""

    def __init__(self, job: dict[str, Any], out: IO[str]) -> None:
        self._job, self._out = job, out
        self._began = time.perf_counter()
        self._headers = {"authorization": f"Bearer {job['key']}"}

    async def ask(self, request_func_input: Any, session: Any, pbar: Any = None) -> Any:
        """One request, in the form that the loop calls and answers it."""
        from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput

        index = int(request_func_input.request_id)
        asked = self._job["requests"][index]
        sent = time.perf_counter()
        record: dict[str, Any] = {"index": index, "sent": round(sent - self._began, DIGITS)}
        try:
            async with asyncio.timeout(asked.get("vanish_s") or self._job["timeout_s"]):
                record |= await self._answer(asked["body"], session, sent)
        except TimeoutError:
            record["error"] = "vanished" if asked.get("vanish_s") else "timeout"
        except Exception as fault:
            record["error"] = f"{type(fault).__name__}: {fault}"[:300]
        record["took"] = round(time.perf_counter() - sent, DIGITS)
        tell(self._out, record)
        # The loop counts and gathers; its own figures are not used.
        return RequestFuncOutput(
            success="error" not in record, start_time=sent, latency=record["took"], output_tokens=1
        )

    async def _answer(self, body: dict[str, Any], session: Any, sent: float) -> dict[str, Any]:
        url = self._job["url"] + "/v1/chat/completions"
        async with session.post(url, json=body, headers=self._headers) as response:
            if response.status != 200:
                return await refused(response)
            return told(await listen(response.content.iter_any(), sent))


async def refused(response: Any) -> dict[str, Any]:
    """What a response that is no answer says."""
    after = response.headers.get("retry-after")
    said = (await response.text())[:300]
    found = {"status": response.status, "error": f"http {response.status}: {said}"}
    seconds = seconds_of(after or "")
    return found if seconds is None else found | {"retry_after": seconds}


def seconds_of(after: str) -> float | None:
    """What Retry-After says, as seconds or as a date; None if it says nothing that is known."""
    with contextlib.suppress(ValueError):
        return float(after)
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    return None


def told(heard: Heard) -> dict[str, Any]:
    """An answer as the fields of a record."""
    found: dict[str, Any] = {
        "status": 200, "reasoning": heard.reasoning, "content": heard.content,
        "events": heard.events, "text": heard.text, "usage": heard.usage,
        "decoding": heard.decoding, "finish": heard.finish,
    }  # fmt: skip
    fault = heard.fault()
    return found if fault is None else found | {"error": fault}


async def run(job: dict[str, Any], out: IO[str]) -> dict[str, Any]:
    """All requests of one job; how long that took and how late this process was, in seconds."""
    from vllm.benchmarks.datasets import SampleRequest
    from vllm.benchmarks.lib.endpoint_request_func import ASYNC_REQUEST_FUNCS
    from vllm.benchmarks.serve import TaskType, benchmark

    samples = [
        SampleRequest(prompt="", prompt_len=0, request_id=str(i), timestamp=asked.get("at"))
        for i, asked in enumerate(job["requests"])
    ]
    random.seed(job["seed"])
    np.random.seed(job["seed"])
    ASYNC_REQUEST_FUNCS[BACKEND] = Listener(job, out).ask
    began, lags = time.perf_counter(), list[float]()
    beating = asyncio.create_task(beat(lags))
    # What the loop prints is for people who run it by hand.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        await benchmark(
            task_type=TaskType.GENERATION, endpoint_type=BACKEND,
            api_url=job["url"] + "/v1/chat/completions", base_url=job["url"], model_id="",
            model_name="", tokenizer=None, input_requests=samples, logprobs=None,
            request_rate=job.get("rate") or float("inf"), burstiness=job.get("burstiness", 1.0),
            disable_tqdm=True, num_warmups=0, profile=False, selected_percentile_metrics=[],
            selected_percentiles=[], ignore_eos=False, goodput_config_dict={},
            max_concurrency=job.get("concurrent"), lora_modules=None, extra_headers=None,
            extra_body=None, ready_check_timeout_sec=0, self_timed=bool(job.get("timed")),
        )  # fmt: skip
    beating.cancel()
    return {"seconds": time.perf_counter() - began, "late_s": float(np.quantile(lags or [0], 0.99))}


async def beat(lags: list[float]) -> None:
    """Notes how much later than asked the event loop comes round."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(BEAT)
        lags.append(time.perf_counter() - before - BEAT)


def tell(out: IO[str], line: dict[str, Any]) -> None:
    """One line to whoever reads."""
    out.write(json.dumps(line) + "\n")
    out.flush()


def main() -> None:
    """Reads jobs until the input ends."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not mix with the records
    import vllm.benchmarks.serve  # noqa: F401  (half a minute: said to be ready only then)

    tell(out, {"ready": True})
    for line in sys.stdin:
        tell(out, {"end": asyncio.run(run(json.loads(line), out))})


if __name__ == "__main__":
    main()
