"""What watching costs where nothing is to be steered: SafeThink against `plain` and its own forms.

    python -m benchmarks.safethink [--pairs 7] [--json FILE]

A model of 50M random weights writes a fixed number of tokens, cut into steps of a fixed length; a
guard elsewhere answers after a fixed delay (`far_guard`), another one runs on the same cores. Arms
take turns in one run; the table has median ratios with 95% intervals by order statistics.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.about import close
from benchmarks.medians import middle, repeats
from benchmarks.servers import ENGINE_ARGS
from clients.local import free_port, started

ROOT = Path(__file__).resolve().parent.parent
TOKENS, STEP, DELAY_MS = 192, 16, 50
WAVES = 3
WIDTH = 140
Arm = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: seconds to its end and to its first text, tokens a second's share, hold-back."""

    seconds: float
    first: float
    held_back: float


def watched(guard: str, *, optimistic: bool = True) -> Arm:
    """SafeThink with steps of a fixed length by the guard called so."""
    params = {
        "monitor": guard, "boundaries": [], "max_step_tokens": STEP, "optimistic": optimistic,
        "threshold": -1.0,
    }  # fmt: skip
    return {"strategy": "safethink", "params": params}


async def one(client: httpx.AsyncClient, decoding: Arm, number: int) -> Seen:
    """Sends a streamed request and reads it to its end."""
    body = {
        "model": "model", "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0,
        "messages": [{"role": "user", "content": f"Question {number}: what is {number} * 4?"}],
        "stream": True, "decoding": decoding,
    }  # fmt: skip
    began, first, told = time.perf_counter(), 0.0, dict[str, Any]()
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            choice = (json.loads(line[6:])["choices"] or [{}])[0]
            if not first and choice.get("delta", {}).get("content"):
                first = time.perf_counter() - began
            told = choice.get("decoding") or told
    if told.get("outcome") not in ("complete", "budget_exhausted", "degraded"):
        raise RuntimeError(f"an answer went wrong: {told}")
    return Seen(time.perf_counter() - began, first, told.get("mean_held_back", 0.0))


async def closed_loop(url: str, decoding: Arm, concurrent: int) -> tuple[list[Seen], float]:
    """So many clients at a time, each with a few requests in turn; and the seconds it all took."""
    limits = httpx.Limits(max_connections=concurrent)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:

        async def worker(at: int) -> list[Seen]:
            return [await one(client, decoding, at + 100 * wave) for wave in range(WAVES)]

        began = time.perf_counter()
        found = await asyncio.gather(*(worker(at) for at in range(concurrent)))
        return [seen for part in found for seen in part], time.perf_counter() - began


def run(url: str, decoding: Arm, concurrent: int) -> dict[str, float]:
    """One arm's run: median times, tokens a second and mean hold-back."""
    seen, seconds = asyncio.run(closed_loop(url, decoding, concurrent))
    return {
        "e2e_s": median(one.seconds for one in seen),
        "first_s": median(one.first for one in seen),
        "tokens_per_s": len(seen) * TOKENS / seconds,
        "held_back": mean(one.held_back for one in seen),
    }


@contextmanager
def guard_elsewhere() -> Iterator[str]:
    """The far guard's address."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.far_guard", f"--port={port}"])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()


def configuration(checkpoint: Path, far: str, delays: Mapping[str, float]) -> dict[str, Any]:
    """One engine, far guards by name with their delays in milliseconds, and one on these cores."""
    monitors: dict[str, Any] = {
        name: {"kind": "remote", "url": f"{far}/{delay:.1f}", "health": None}
        for name, delay in delays.items()
    }
    monitors["here"] = {
        "kind": "generative_guard", "model": "builtin:guard", "family": "llama_guard_3",
        # Random weights write no words, so it finds no verdict in some of them, at the same cost.
        "on_monitor_error": "continue",
    }  # fmt: skip
    return {
        "engines": {"main": {"kind": "vllm", "model": str(checkpoint), "engine_args": ENGINE_ARGS}},
        "models": {"model": {"engine": "main"}},
        "monitors": monitors,
    }


def pairs(
    url: str, ours: Arm, other: Arm, concurrent: int, count: int
) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Both arms in turn, `count` times; who begins alternates."""
    found = []
    for number in range(count):
        if number % 2:
            second = run(url, other, concurrent)
            found.append((run(url, ours, concurrent), second))
        else:
            first = run(url, ours, concurrent)
            found.append((first, run(url, other, concurrent)))
    return found


def compared(
    name: str, ratios: Sequence[float], bound: str, **more: float
) -> dict[str, Any]:  # fmt: skip
    """A row of the table."""
    found = middle(ratios)
    return {
        "what": name, "ratio": found["value"], "low": found["low"], "high": found["high"],
        "pairs": len(ratios), "bound": bound, **more,
    }  # fmt: skip


def measure(checkpoint: Path, count: int, out: Console) -> list[dict[str, Any]]:
    """All comparisons; the second server knows how long a step took on the first."""
    rows: list[dict[str, Any]] = []
    with guard_elsewhere() as far, TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(configuration(checkpoint, far, {"far": DELAY_MS})))
        with started(out, ["--config", str(file)]) as server:
            run(server.url, {"strategy": "plain"}, 8)
            step = run(server.url, {"strategy": "plain"}, 8)["e2e_s"] * STEP / TOKENS
            rows += quiet(server.url, "far", step, count, out)
            rows += quiet(server.url, "here", step, count, out)
        delays = {"far": 1000 * step}
        file.write_text(yaml.safe_dump(configuration(checkpoint, far, delays)))
        with started(out, ["--config", str(file)]) as server:
            run(server.url, watched("far"), 8)
            both = pairs(
                server.url, watched("far", optimistic=False), watched("far"), 8, count
            )  # fmt: skip
            ratios = [slow["e2e_s"] / fast["e2e_s"] for slow, fast in both]
            spent = {"seconds": median(fast["e2e_s"] for _, fast in both), "step_s": step}
            name = "sequential / optimistic, end to end, delay = a step"
            rows.append(compared(name, ratios, ">= 1.5", **spent))
    return rows


def quiet(url: str, guard: str, step: float, count: int, out: Console) -> list[dict[str, Any]]:
    """SafeThink that steers nothing against `plain`, 8 clients."""
    delay = DELAY_MS / 1000 if guard == "far" else 0.0
    found = pairs(url, watched(guard), {"strategy": "plain"}, 8, count)
    for ours, plain in found:
        out.print(f"{guard}: {ours} against {plain}", style="dim")
    allowed = [
        ours["e2e_s"] / (1.05 * plain["e2e_s"] + delay + step) for ours, plain in found
    ]  # fmt: skip
    over = [ours["e2e_s"] / plain["e2e_s"] for ours, plain in found]
    rates = [ours["tokens_per_s"] / plain["tokens_per_s"] for ours, plain in found]
    first = [ours["first_s"] - plain["first_s"] for ours, plain in found]
    held = mean(ours["held_back"] for ours, _ in found)
    name = f"guard {guard}"
    spent = {"seconds": median(one["e2e_s"] for one, _ in found)}
    return [
        compared(f"{name}: end to end / plain", over, "", **spent),
        compared(f"{name}: end to end / (1.05 plain + delay + step)", allowed, "<= 1", step_s=step),
        compared(f"{name}: throughput / plain", rates, ">= 0.95", held_back=held),
        compared(f"{name}: first text later by (s)", first, ""),
    ]


def show(rows: Sequence[Mapping[str, Any]], out: Console) -> None:
    """The table."""
    table = Table("what", "median", "95% interval", "pairs", "wanted", "s a request", "held back")
    for row in rows:
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        more = [f"{row[key]:.2f}" if key in row else "" for key in ("seconds", "held_back")]
        ratio = f"{row['ratio']:.3f}"
        table.add_row(row["what"], ratio, interval, str(row["pairs"]), row["bound"], *more)
    out.print(table)
    out.print(f"held back: tokens that wait for a verdict, mean (steps of {STEP})")


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=repeats, default=7)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "50m"
        write = [sys.executable, "-m", "benchmarks.random_llama", str(checkpoint)]
        subprocess.run(write, check=True, cwd=ROOT)
        rows = measure(checkpoint, asked.pairs, Console(stderr=True))
    show(rows, Console(width=None if sys.stdout.isatty() else WIDTH))
    close({"rows": rows}, asked.json)


if __name__ == "__main__":
    main()
