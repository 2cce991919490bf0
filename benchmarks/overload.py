"""Three times what the server can bear: is the queue bounded, are refusals quick, goodput kept?

    python -m benchmarks.overload [--vllm] [--seconds 15] [--strategy plain] [--json FILE]

The load runs on the last core. By default the engine is a table that takes 10 ms for a token and no
core, so that what is seen is the server's own doing, on all other cores; with `--vllm` it is the
built-in reasoner, and engine, server and load share the cores. Capacity is what a closed loop of
three times as many clients as rows gets answered, so that no row idles; then Poisson arrivals at
shares of it up to three times as many. A request is well served if it ends within what it takes
where all rows are taken and none waits, twice over, plus the bound on the queue. Refusals are timed
in the server, by its access log.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.about import close
from benchmarks.capacity import capacity
from benchmarks.medians import ratio
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
CLIENTS = 3 * ROWS
SHARES = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)
MODEL, WIDTH = "model", 140
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
            [self._arm], [how], load(DEFAULT, n), warmup=warmup,
            sampling={"temperature": 1.0, "max_completion_tokens": 300}, timeout_s=120,
        )  # fmt: skip
        target = Target(self._local.url, MODEL)
        with Watch(lambda: gauges(self._local.url)["queued_requests"], 0.25) as watch:
            (point,) = measure(sweep, target, self._sending, lambda name, done, n: None)
        refused = [
            one["seconds"] for one in accesses(self._local.log)[before:] if one["status"] == 503
        ]
        return point, int(max(watch.seen, default=0)), refused

    def loop(self, n: int) -> list[float]:
        """When each of so many requests was answered, with rows always full."""
        point, _, _ = self.run(Load("capacity", concurrent=CLIENTS), n)
        return [one.sent + one.took for one in point.good]


def measured(trial: Trial, seconds: float, out: Console) -> tuple[list[Row], Row]:
    """All loads, and what they are measured against."""
    full, _, _ = trial.run(Load("full", concurrent=ROWS), 8 * ROWS, ROWS)
    whole = figures(full, {})["e2e_p50"]
    rate_most = capacity(trial.loop, CLIENTS, seconds)
    goals = {"e2e": 2 * whole + WAIT_MS}
    measures = {"capacity_per_s": rate_most, "e2e_full_ms": whole, "goal_ms": goals["e2e"]}
    out.print(measures)
    rows = []
    for share in SHARES:
        rate = share * rate_most
        point, queue, refused = trial.run(Load(f"{share:g}x", rate=rate), round(rate * seconds))
        rows.append(row(share, point, queue, refused, goals))
        out.print(rows[-1])
    return rows, measures


def row(
    share: float, point: Point, queue: int, refused: Sequence[float], goals: dict[str, float]
) -> Row:
    """What one load came to."""
    found = figures(point, goals)
    refusals = sum(one.status == 503 for one in point.records)
    met = wilson(round(found["goals_met"] * found["n"]), found["n"])
    waits = [one.retry_after for one in point.records if one.status == 503]
    return {
        "share": share, "offered": point.load.level, "n": found["n"],
        "answered": len(point.good), "refused": refusals,
        "other": len(point.records) - len(point.good) - refusals,
        "goodput": found["goodput"],
        "goodput_low": found["goodput"] * met.low / max(met.value, 1e-9),
        "goodput_high": found["goodput"] * met.high / max(met.value, 1e-9),
        "e2e_p50": found["e2e_p50"], "e2e_p99": found["e2e_p99"], "queue_most": queue,
        "refusal_p95_ms": 1000 * float(np.percentile(refused, 95)) if refused else None,
        "with_retry_after": sum(w is not None for w in waits), "late_ms": 1000 * point.late_s,
    }  # fmt: skip


def verdicts(rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """What must hold at three times capacity, where something has to be refused."""
    last, best = rows[-1], max(rows, key=lambda one: float(one["goodput"]))
    kept = {
        "value": last["goodput"] / best["goodput"],
        # Both at their other ends: never narrower than 95%.
        "low": last["goodput_low"] / best["goodput_high"],
        "high": last["goodput_high"] / best["goodput_low"],
    }
    refusal = last["refusal_p95_ms"]
    quick = refusal is not None and refusal < 100
    return [
        (f"more came than fits ({last['refused']} refused)", last["refused"] > 0),
        (f"the queue is bounded ({last['queue_most']} of {QUEUE})", last["queue_most"] <= QUEUE),
        (f"refusals within 100 ms (p95 {refusal or float('nan'):.1f} ms)", quick),
        ("every refusal has Retry-After", last["with_retry_after"] == last["refused"]),
        ("nothing but answers and refusals", not any(one["other"] for one in rows)),
        (f"goodput {ratio(kept)} of its maximum, n {last['n']} and {best['n']}",
         kept["value"] >= 0.9),
    ]  # fmt: skip


def show(rows: Sequence[Row], out: Console) -> None:
    """The table."""
    names = ("share", "offered", "n", "answered", "refused", "other", "goodput", "e2e_p50",
             "e2e_p99", "queue_most", "refusal_p95_ms", "late_ms")  # fmt: skip
    table = Table(*names)
    for one in rows:
        cells = {key: "" if one[key] is None else f"{one[key]:.4g}" for key in names}
        cells["goodput"] += f" [{one['goodput_low']:.4g}, {one['goodput_high']:.4g}]"
        table.add_row(*cells.values())
    out.print(table)


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--strategy", default="plain")
    parser.add_argument("--vllm", action="store_true", help="the built-in reasoner, not a table")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    out = Console(stderr=True)
    with pinned(out, settings(asked.vllm), apart=not asked.vllm) as local, driver() as sending:
        rows, measures = measured(Trial(local, sending, asked.strategy), asked.seconds, out)
    show(rows, Console(width=None if sys.stdout.isatty() else WIDTH))
    close({**measures, "rows": rows}, asked.json, verdicts(rows))


if __name__ == "__main__":
    main()
