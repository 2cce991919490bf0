"""What a token costs at each layer: the engine, the run, the text, the trace, HTTP.

    python -m benchmarks.layers [--rounds 25] [--json FILE]

A table engine that takes no time for a token writes answers of a fixed length, each token a letter.
Layers are added in turn, and the arms take turns in every round: the engine itself, `plain` by a
run over it, the text made of its commits, all that a server does. Arms run in this process, in a
loop of the server's kind; but over HTTP the server has a core of its own and is read raw, over a
new connection for each request, which takes less time than it. `plain` notes nothing, so traces are
compared on a vote, which does. Medians have 95% intervals by order statistics.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from rich.console import Console
from rich.table import Table

from benchmarks.about import close
from benchmarks.medians import middle, repeats
from benchmarks.watched import pinned
from decoders.core.answer import answer
from decoders.core.base import DecodeRequest, TraceLevel
from decoders.core.ledger import Ledger
from decoders.core.registry import find
from decoders.core.run import Run, Tally, checked
from decoders.core.trace import Trace
from engines.base import Sampling
from engines.table import TableEngine, build

SPEC = {"kind": "table", "tokens": ["a", "b"], "matrix": [[0, 1], [1, 0]]}
LIMITS = {"rows": 256, "branches": 256}
TOKENS, PATHS = 512, 4
LOADS = {1: 16, 32: 1}
"""Requests of each stream, by how many streams there are."""
SINGLES, WIDTH = 40, 120
VOTE = "parallel_thinking"
Work = Callable[[int], Awaitable[None]]
"""One request of so many tokens, all of its paths together."""
Row = dict[str, Any]
STEPS: Mapping[str, tuple[str, str | None]] = {
    "engine": ("engine", None),
    "+ run": ("run", "engine"),
    "+ text": ("text", "run"),
    "+ HTTP": ("http", "text"),
    f"{VOTE} of {PATHS}": ("vote, none", None),
    "+ trace, summary": ("vote, summary", "vote, none"),
    "+ trace, full": ("vote, full", "vote, none"),
}
"""What a layer costs: an arm, less another one."""


def asked(
    engine: TableEngine, tokens: int, level: str = "none", params: Mapping[str, Any] | None = None
) -> DecodeRequest:
    """A request as the server makes it: `plain`, or a vote with these parameters."""
    name = "plain" if params is None else VOTE
    return DecodeRequest(
        engine=engine, prompt=tuple(engine.tokenizer.encode("ab", special=False)), strategy=name,
        options=checked(find(name).options, params or {}, "decoding.params"), seed=1,
        sampling=Sampling(temperature=0, ignore_eos=True), trace=TraceLevel(level),
        max_tokens=tokens if params is None else max(1, tokens // PATHS),
    )  # fmt: skip


async def drained(source: AsyncGenerator[Any, None]) -> None:
    """Takes all that it gives."""
    async with aclosing(source):
        async for _ in source:
            pass


def inside(engine: TableEngine) -> dict[str, Work]:
    """The arms of this process."""
    vote = {"paths": PATHS, "early_stop": False}

    async def alone(tokens: int) -> None:
        request = asked(engine, tokens)
        await drained(engine.generate(request.prompt, request.sampling, tokens))

    async def run(tokens: int) -> None:
        request = asked(engine, tokens)
        [ledger] = Ledger.for_choices(request.budget, 1, 0.0)
        await drained(Run(request, ledger, Trace(request.trace), Tally(), (0,)).decode("plain", {}))

    def whole(level: str, params: Mapping[str, Any] | None = None) -> Work:
        async def text(tokens: int) -> None:
            request = asked(engine, tokens, level, params)
            [ledger] = Ledger.for_choices(request.budget, 1, 0.0)
            await drained(answer(request, 0, ledger))

        return text

    votes = {f"vote, {level}": whole(level, vote) for level in ("none", "summary", "full")}
    return {"engine": alone, "run": run, "text": whole("none"), **votes}


def over_http(url: str, *, stream: bool) -> Work:
    """The arm that asks a server; raises RuntimeError for any other answer than a whole one."""
    where = urlsplit(url)

    async def http(tokens: int) -> None:
        body = {
            "model": "model", "prompt": "ab", "max_tokens": tokens, "temperature": 0, "seed": 1,
            "ignore_eos": True, "stream": stream,
            "decoding": {"strategy": "plain", "trace": "none"},
        }  # fmt: skip
        raw = json.dumps(body).encode()
        head = [
            "POST /v1/completions HTTP/1.1", f"host: {where.netloc}", "connection: close",
            "content-type: application/json", f"content-length: {len(raw)}", "", "",
        ]  # fmt: skip
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write("\r\n".join(head).encode() + raw)
        told = await reader.read(-1)
        writer.close()
        if told.count(b'"text":"') < (tokens if stream else 1):
            raise RuntimeError(told[-2000:].decode())

    return http


async def seconds(work: Work, streams: int, each: int, tokens: int) -> float:
    """How long so many streams take, each with a few requests in turn."""

    async def stream() -> None:
        for _ in range(each):
            await work(tokens)

    began = time.perf_counter()
    await asyncio.gather(*(stream() for _ in range(streams)))
    return time.perf_counter() - began


async def measured(url: str, rounds: int, out: Console) -> list[Row]:
    """All rows; every round has every arm, who begins turns."""
    engine = build("table", SPEC)
    await engine.start()
    arms = {**inside(engine), "http": over_http(url, stream=True)}
    rows: list[Row] = []
    for streams, each in LOADS.items():
        found = await turns(arms, streams, each, TOKENS, rounds)
        rows += layers(found, 1e6 / (streams * each * TOKENS), f"µs a token, x{streams}")
        out.print(f"x{streams}: done", style="dim")
    arms["http"] = over_http(url, stream=False)
    found = await turns(arms, 1, SINGLES, 1, rounds)
    return rows + layers(found, 1e3 / SINGLES, "ms a request of one token")


async def turns(
    arms: Mapping[str, Work], streams: int, each: int, tokens: int, rounds: int
) -> dict[str, list[float]]:
    """Every arm's seconds, by round, after one uncounted."""
    names, found = list(arms), {name: list[float]() for name in arms}
    for turn in range(rounds + 1):
        first = turn % len(names)
        for name in [*names[first:], *names[:first]]:
            took = await seconds(arms[name], streams, each, tokens)
            if turn:
                found[name].append(took)
    return found


def layers(found: Mapping[str, Sequence[float]], scale: float, unit: str) -> list[Row]:
    """What each layer adds, by differences within a round; and what there is with it."""
    rows = []
    for what, (arm, less) in STEPS.items():
        under = found[less] if less else [0.0] * len(found[arm])
        added = [scale * (one - other) for one, other in zip(found[arm], under, strict=True)]
        whole = scale * median(found[arm])
        rows.append({"what": what, "unit": unit, "rounds": len(added), "whole": whole,
                     **middle(added)})  # fmt: skip
    return rows


def show(rows: Sequence[Row], out: Console) -> None:
    """The table."""
    table = Table("", "", "adds", "95% interval", "all together", "rounds")
    for row in rows:
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
        cells = (f"{row['value']:.2f}", interval, f"{row['whole']:.2f}", str(row["rounds"]))
        table.add_row(row["unit"], row["what"], *cells)
    out.print(table)


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=repeats, default=25)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    out = Console(stderr=True)
    settings = {
        "engines": {"main": SPEC}, "models": {"model": {"engine": "main"}}, "limits": LIMITS,
    }  # fmt: skip
    loop = uvicorn.Config("").get_loop_factory()
    with pinned(out, settings, apart=True) as local, asyncio.Runner(loop_factory=loop) as runner:
        rows = runner.run(measured(local.url, given.rounds, out))
    show(rows, Console(width=None if sys.stdout.isatty() else WIDTH))
    close({"rows": rows}, given.json)


if __name__ == "__main__":
    main()
