"""Drives `vllm bench serve` many times in one process: JSON jobs in, JSON results out, by line.

Runs in an environment that has vLLM with its bench's needs; knows nothing of what it is pointed at.
"""

import asyncio
import contextlib
import io
import json
import os
import sys
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
KEPT = ("completed", "output_throughput", "median_tpot_ms", "median_ttft_ms", "duration")


def run(job: dict[str, Any]) -> dict[str, float]:
    """One bench run; `job` holds its command-line options without the dashes."""
    from vllm.benchmarks.serve import add_cli_args, main_async
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    words = [part for key, value in job.items() for part in _option(key, value)]
    noise = io.StringIO()
    with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
        result = asyncio.run(main_async(parser.parse_args(words)))
    if result["completed"] != job["num-prompts"]:
        raise RuntimeError(f"only {result['completed']} answered\n{noise.getvalue()[-3000:]}")
    return {key: result[key] for key in KEPT}


def _option(key: str, value: Any) -> list[str]:
    return [f"--{key}"] if value is True else [f"--{key}", str(value)]


def main() -> None:
    """Reads jobs until the input ends."""
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
