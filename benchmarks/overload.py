"""Three times what the server can bear: is the queue bounded, are refusals quick, goodput kept?

    python -m benchmarks.overload [--vllm] [--seconds 30] [--strategy plain] [--json FILE]

The load runs on the last core. By default the engine is a table that takes 10 ms for a token and no
core, so that what is seen is the server's own doing, on all other cores; with `--vllm` it is the
built-in reasoner, and engine, server and load share the cores. Capacity is what a closed loop that
fills all rows gets answered; then Poisson arrivals at shares of it up to three times as many. A
request is well served if it ends within what it takes at capacity, twice over, plus the bound on
the queue. Refusals are timed in the server, by its access log.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.watched import Watch, accesses, gauges, pinned
from clients.bench import arm
from clients.bench.driver import Driver, driver
from clients.bench.figures import Point, figures
from clients.bench.load import Load
from clients.bench.prompts import DEFAULT, load
from clients.bench.sweep import Sweep, Target, measure
from clients.eval.core.statistics import wilson
from clients.local import Local

ROWS, QUEUE, WAIT_MS = 16, 64, 3000
SHARES = (0.5, 0.8, 1.0, 3.0)
MODEL = "model"
Row = dict[str, Any]


REASONER = {
    "kind": "vllm", "model": "builtin:reasoner",
    "engine_args": {
        "dtype": "float32", "max_model_len": 2048, "max_num_seqs": ROWS,
        "num_gpu_blocks_override": 1024,
    },
}  # fmt: skip
TABLE = {"kind": "table", "token_seconds": 0.01}


def settings(real: bool) -> dict[str, Any]:
    """One engine of few rows, so that a small machine can be overloaded from one core."""
    think = {"think": ["<think>", "</think>"]} if real else {}
    return {
        "engines": {"main": REASONER if real else TABLE},
        "models": {MODEL: {"engine": "main", **think}},
        "limits": {"rows": ROWS, "branches": ROWS, "queue": QUEUE, "wait_ms": WAIT_MS},
        "server": {"log_format": "json"},
    }


class Trial:
    """One server under one load after another."""

    def __init__(self, local: Local, sending: Driver, strategy: str) -> None:
        self._local, self._sending = local, sending
        self._arm = arm.read(strategy)

    def run(self, how: Load, n: int, warmup: int = 0) -> tuple[Point, int, list[float]]:
        """The measured point, the longest queue seen, and the refusals' seconds in the server."""
        before = len(accesses(self._local.log))
        sweep = Sweep(
            [self._arm], [how], load(DEFAULT, n), warmup,
            sampling={"temperature": 1.0, "max_completion_tokens": 300}, timeout_s=120,
        )  # fmt: skip
        target = Target(self._local.url, MODEL)
        with Watch(lambda: gauges(self._local.url)["queued_requests"], 0.25) as watch:
            (point,) = measure(sweep, target, self._sending, lambda name, done, n: None)
        refused = [
            one["seconds"] for one in accesses(self._local.log)[before:] if one["status"] == 503
        ]
        return point, int(max(watch.seen, default=0)), refused


def measured(trial: Trial, seconds: float, out: Console) -> tuple[list[Row], Row]:
    """All loads, and what they are measured against."""
    full, _, _ = trial.run(Load("full", concurrent=ROWS), 8 * ROWS, ROWS)
    at_capacity = figures(full, {})
    capacity, whole = at_capacity["requests_per_s"], at_capacity["e2e_p50"]
    goals = {"e2e": 2 * whole + WAIT_MS}
    about = {"capacity_per_s": capacity, "e2e_at_capacity_ms": whole, "goal_ms": goals["e2e"]}
    out.print(about)
    rows = []
    for share in SHARES:
        rate = share * capacity
        point, queue, refused = trial.run(Load(f"{share:g}x", rate=rate), round(rate * seconds))
        rows.append(row(share, point, queue, refused, goals))
        out.print(rows[-1])
    return rows, about


def row(
    share: float, point: Point, queue: int, refused: Sequence[float], goals: dict[str, float]
) -> Row:
    """What one load came to."""
    found = figures(point, goals)
    statuses = [one.status for one in point.records]
    met = wilson(round(found["goals_met"] * found["n"]), found["n"])
    waits = [one.retry_after for one in point.records if one.status == 503]
    return {
        "share": share, "n": found["n"], "answered": statuses.count(200),
        "refused": statuses.count(503),
        "other": len(statuses) - statuses.count(200) - statuses.count(503),
        "goodput": found["goodput"],
        "goodput_low": found["goodput"] * met.low / max(met.value, 1e-9),
        "goodput_high": found["goodput"] * met.high / max(met.value, 1e-9),
        "e2e_p50": found["e2e_p50"], "e2e_p99": found["e2e_p99"], "queue_most": queue,
        "refusal_p95_ms": 1000 * float(np.percentile(refused, 95)) if refused else None,
        "with_retry_after": sum(w is not None for w in waits), "late_ms": 1000 * point.late_s,
    }  # fmt: skip


def verdicts(rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """What must hold at three times capacity."""
    last, best = rows[-1], max(one["goodput"] for one in rows)
    refusal = last["refusal_p95_ms"]
    return [
        (f"the queue is bounded ({last['queue_most']} of {QUEUE})", last["queue_most"] <= QUEUE),
        (f"refusals within 100 ms (p95 {refusal or 0:.1f} ms)", refusal is None or refusal < 100),
        ("every refusal has Retry-After", last["with_retry_after"] == last["refused"]),
        ("nothing but answers and refusals", not any(one["other"] for one in rows)),
        (f"goodput {last['goodput'] / best:.2f} of its maximum", last["goodput"] >= 0.9 * best),
    ]


def show(rows: Sequence[Row], out: Console) -> None:
    """The table."""
    names = ("share", "n", "answered", "refused", "goodput", "e2e_p50", "e2e_p99", "queue_most",
             "refusal_p95_ms")  # fmt: skip
    table = Table(*names)
    for one in rows:
        table.add_row(*("" if one[k] is None else f"{one[k]:.4g}" for k in names))
    out.print(table)


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--strategy", default="plain")
    parser.add_argument("--vllm", action="store_true", help="the built-in reasoner, not a table")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    out = Console(stderr=True)
    with pinned(out, settings(asked.vllm), apart=not asked.vllm) as local, driver() as sending:
        rows, about = measured(Trial(local, sending, asked.strategy), asked.seconds, out)
    show(rows, Console())
    checks = verdicts(rows)
    for text, held in checks:
        print(f"{'holds' if held else 'does not hold'}: {text}")
    if asked.json:
        found = {**about, "rows": rows, "verdicts": [list(one) for one in checks]}
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
