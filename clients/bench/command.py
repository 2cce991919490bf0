"""`satisfice bench`: reads what is wanted, finds a server, runs the sweep, writes the result."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from clients.bench import arm, goals, load, page, result, showing
from clients.bench.counters import counted
from clients.bench.driver import LoadFailed, driver
from clients.bench.load import Arrival, Load
from clients.bench.prompts import DEFAULT, Maker, Prompt, lengths
from clients.bench.prompts import load as prompts_of
from clients.bench.result import Result
from clients.bench.sweep import Predict, Sweep, Target, measure
from clients.eval.core.command import WIDTH, first_model, serving
from clients.local import ServerFailed

FAULTS = (ValueError, OSError, ServerFailed, LoadFailed, httpx.HTTPError)


@dataclass(frozen=True)
class Asked:
    """The command line's wishes as they were given."""

    strategies: Sequence[str] = ("plain",)
    concurrency: str = ""
    rate: str = ""
    burstiness: float = 1.0
    replay: Path | None = None
    speed: float = 1.0
    token_scale: float = 1.0
    prompts: Path | None = None
    synthetic: str = ""
    n: int = 64
    warmup: int = 4
    rounds: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int = 0
    goal: str = ""
    timeout_s: float = 300.0
    model: str | None = None
    python: str = sys.executable
    extra: Mapping[str, Any] = field(default_factory=dict)


def run(asked: Asked, url: str | None, json_file: Path | None, html: Path | None) -> int:
    """Measures and writes; the exit status."""
    console = terminal()
    try:
        wanted, bounds = [arm.read(text) for text in asked.strategies], goals.read(asked.goal)
        with serving(console, url) as local:
            found = measured(console, asked, wanted, bounds, local.url)
    except FAULTS as fault:
        console.print(f"bench: {fault}", markup=False)
        return 1
    console.print(showing.figures_of(found))
    if json_file is not None:
        found.write(json_file)
    if html is not None:
        html.write_text(page.page(found), "utf-8")
    return 0


def terminal() -> Console:
    """Where nobody looks at it, a table need not fit a screen."""
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDTH)


def measured(
    console: Console, asked: Asked, arms: Sequence[arm.Arm], bounds: goals.Goals, url: str
) -> Result:
    """Runs the sweep on the server at `url`."""
    key = os.environ.get("OPENAI_API_KEY", "none")
    target = Target(url, asked.model or first_model(url, key), key)
    loads, prompts = wishes(asked, target)
    sampling = dict(asked.extra)
    if asked.temperature is not None:
        sampling["temperature"] = asked.temperature
    sweep = Sweep(
        arms, loads, prompts, asked.warmup, asked.rounds, asked.seed, asked.max_tokens, sampling,
        asked.timeout_s,
    )  # fmt: skip
    console.print(f"model: {target.model}, {len(prompts)} requests a point", markup=False)
    console.print("starting the load generator (vLLM's, 10 to 30 s)")
    before = result.machine()
    with (
        driver(asked.python) as sending,
        showing.progress(console) as told,
        closing(httpx.Client(timeout=60, headers={"authorization": f"Bearer {key}"})) as http,
    ):
        points = measure(
            sweep, target, sending, told, predicting(http, url), lambda: counted(http, url)
        )
    about = {"command": " ".join(sys.argv[1:]), "model": target.model, "seed": asked.seed}
    return Result(points, bounds, about | before)


def wishes(asked: Asked, target: Target) -> tuple[list[Load], list[Prompt]]:
    """The loads and what is asked under each. Raises ValueError."""
    arrivals: list[Arrival] = []
    loads = load.closed(asked.concurrency) + load.opened(asked.rate, asked.burstiness)
    if asked.replay is not None:
        arrivals = load.recorded(asked.replay, asked.n, asked.speed)
        loads.append(load.replay(asked.replay.stem, arrivals))
    if asked.prompts is not None or not (asked.synthetic or arrivals):
        return loads or load.closed("1"), prompts_of(asked.prompts or DEFAULT, asked.n)
    if asked.synthetic:
        wanted = lengths(asked.synthetic, asked.n)
    else:
        wanted = [scaled(one, asked.token_scale) for one in arrivals]
    with closing(Maker(target.url, target.model, target.key, asked.seed)) as maker:
        return loads or load.closed("1"), maker.made(wanted)


def scaled(one: Arrival, scale: float) -> tuple[int, int]:
    """Tokens of prompt and answer of a recorded request, made to fit a smaller model."""
    return max(1, round(one.context * scale)), max(1, round(one.generated * scale))


def predicting(http: httpx.Client, url: str) -> Predict:
    """Asks for dry runs before each round, of what the server has seen the like of.

    A server that knows no dry runs is asked once.
    """
    known = True

    def predict(body: Mapping[str, Any]) -> float | None:
        nonlocal known
        if not known or "decoding" not in body:
            return None
        asked = {k: v for k, v in body.items() if k not in ("stream", "stream_options")}
        asked["decoding"] = {**body["decoding"], "dry_run": True}
        answer = http.post(f"{url}/v1/chat/completions", json=asked)
        if answer.status_code != 200:
            return None
        expected = answer.json().get("expected")
        known = expected is not None
        return float(expected["generated_tokens"]) if expected and expected["seen"] else None

    return predict
