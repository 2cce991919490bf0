"""Clients that vanish mid-answer: how soon the engine is free again, and whether memory grows.

    python -m benchmarks.vanish [--url URL] [--clients 200] [--rounds 12] [--json FILE]

A third of the clients stream, a third wait for the whole answer, a third run eight paths; each
closes its connection at a random moment. Without --url it starts the built-in server itself.
"""

import argparse
import asyncio
import json
import random
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from rich.console import Console

from benchmarks.about import close
from benchmarks.watched import memory
from clients.local import Local, started

GAUGE = 'satisfice_engine_figure{engine="reasoner",figure="requests_running"}'
WAITING = 'satisfice_engine_figure{engine="reasoner",figure="requests_waiting"}'
ASKED: dict[str, Any] = {
    "model": "satisfice-mini",
    "messages": [{"role": "user", "content": "What is 17 * 4 + 12 * 4?"}],
    "max_tokens": 1500,
    "ignore_eos": True,
}
KINDS: list[dict[str, Any]] = [
    {"stream": True},
    {"stream": False},
    {"stream": True, "decoding": {"strategy": "parallel_thinking", "params": {"paths": 8}}},
]
AT_ONCE = 40


async def vanish(url: str, body: dict[str, Any], after: float) -> None:
    """Sends a request and closes the connection `after` seconds later, unread."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    raw = json.dumps(body).encode()
    head = [
        "POST /v1/chat/completions HTTP/1.1", f"host: {where.netloc}",
        "content-type: application/json", f"content-length: {len(raw)}", "", "",
    ]  # fmt: skip
    writer.write("\r\n".join(head).encode() + raw)
    await writer.drain()
    await asyncio.sleep(after)
    writer.transport.abort()
    del reader


async def one_round(url: str, clients: int, rng: random.Random) -> float:
    """All clients come and go; returns the seconds from the last one to an idle engine."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(index: int) -> None:
        async with gate:
            await vanish(url, {**ASKED, **KINDS[index % 3]}, rng.uniform(0.02, 0.6))

    await asyncio.gather(*(one(index) for index in range(clients)))
    return await until_idle(url)


async def until_idle(url: str, patience: float = 30) -> float:
    """Seconds until the engine says that it runs nothing and nothing waits."""
    began = time.monotonic()
    async with httpx.AsyncClient() as client:
        while (waited := time.monotonic() - began) < patience:
            text = (await client.get(f"{url}/metrics")).text
            if all(f"{gauge} 0.0" in text for gauge in (GAUGE, WAITING)):
                return waited
            await asyncio.sleep(0.02)
    raise TimeoutError(f"the engine was not idle within {patience} s")


def measure(url: str, clients: int, rounds: int, out: Console) -> list[dict[str, float]]:
    """A row per round: seconds to an idle engine, memory after it."""
    rng, rows = random.Random(1), list[dict[str, float]]()
    for number in range(rounds):
        idle = asyncio.run(one_round(url, clients, rng))
        server, engine = memory(url)
        rows.append({"clients": clients, "idle_s": idle, "server_mb": server, "engine_mb": engine})
        told = f"idle after {idle:.3f} s, server {server:.0f} MB, engine {engine:.0f} MB"
        out.print(f"round {number}: {told}")
    return rows


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    out = Console()
    own = nullcontext(Local(asked.url, Path())) if asked.url else started(out)
    with own as server:
        rows = measure(server.url, asked.clients, asked.rounds, out)
    close({"rows": rows}, asked.json)


if __name__ == "__main__":
    main()
