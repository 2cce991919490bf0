"""`satisfice bench`: reads what is wanted, finds a server, runs the sweep, writes the result."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from clients.about import about
from clients.bench import arm, goals, load, page, prompts, showing
from clients.bench.counters import counted
from clients.bench.driver import LoadFailed, driver
from clients.bench.figures import Point
from clients.bench.load import Arrival, Load
from clients.bench.prompts import Prompt
from clients.bench.reading import json_object
from clients.bench.result import Result
from clients.bench.sweep import Predict, Sweep, Target, measuring, warming
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
    body: str = "{}"


@dataclass(frozen=True)
class Wishes:
    """What was asked for, read: `prompts`, or without any `lengths` to make some up to.

    `more` of them are what warms up.
    """

    arms: Sequence[arm.Arm]
    loads: Sequence[Load]
    goals: goals.Goals
    sampling: Mapping[str, Any]
    prompts: Sequence[Prompt]
    lengths: Sequence[tuple[int, int]]
    more: int


def run(asked: Asked, url: str | None, json_file: Path | None, html: Path | None) -> int:
    """Measures and writes; the exit status."""
    console = terminal()
    try:
        wanted = wishes(asked)
        check_writable("--json", json_file)
        check_writable("--html", html)
        with serving(console, url) as local:
            found = measured(console, asked, wanted, local.url)
    except FAULTS as fault:
        console.print(f"bench: {fault}", markup=False)
        return 1
    printed(console, found)
    written = [
        saved(console, "--json", json_file, found.write),
        saved(console, "--html", html, lambda path: path.write_text(page.page(found), "utf-8")),
    ]
    if found.ended_early:
        console.print(f"bench: ended early: {found.ended_early}", markup=False)
    return 0 if all(written) and not found.ended_early else 1


def printed(console: Console, found: Result, markdown: bool = False) -> None:
    """Prints the tables of a run."""
    for grid in showing.figures_of(found):
        if markdown:
            console.print(f"{grid.markdown()}\n", markup=False, soft_wrap=True)
        else:
            console.print(grid.table())


@contextmanager
def option(name: str) -> Iterator[None]:
    """Says which option a fault is of. Raises ValueError."""
    try:
        yield
    except (ValueError, OSError) as fault:
        raise ValueError(f"{name}: {fault}") from None


def check_writable(name: str, path: Path | None) -> None:
    """Before hours of measuring, not after. Raises ValueError."""
    if path is None:
        return
    with option(name):
        there = path if path.exists() else path.parent
        # A file is written over, a folder written into.
        if there.is_dir() == path.exists() or not os.access(there, os.W_OK):
            raise ValueError(f"{path} cannot be written")


def saved(console: Console, name: str, path: Path | None, write: Callable[[Path], object]) -> bool:
    """Whether what was asked for is written; one that fails must not cost the other."""
    try:
        if path is not None:
            write(path)
    except OSError as fault:
        console.print(f"bench: {name}: {fault}", markup=False)
        return False
    return True


def terminal() -> Console:
    """Where nobody looks at it, a table need not fit a screen."""
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDTH)


def measured(console: Console, asked: Asked, wanted: Wishes, url: str) -> Result:
    """Runs the sweep on the server at `url`; what ends it early costs no point that is measured."""
    key = os.environ.get("OPENAI_API_KEY", "none")
    target = Target(url, asked.model or first_model(url, key), key)
    made, more = prompts_for(wanted, target, asked.seed), wanted.more
    sweep = Sweep(
        wanted.arms, wanted.loads, made[: len(made) - more], made[len(made) - more :],
        asked.warmup, asked.rounds, asked.seed, asked.max_tokens, wanted.sampling, asked.timeout_s,
    )  # fmt: skip
    console.print(f"model: {target.model}, {len(sweep.prompts)} requests a point", markup=False)
    console.print("starting the load generator (vLLM's, 10 to 30 s)")
    points, early = dict[str, Point](), dict[str, str]()
    try:
        for one in measurements(console, asked.python, sweep, target):
            points[one.name] = one
    except FAULTS as fault:
        if not points:
            raise
        early = {"ended_early": str(fault) or type(fault).__name__}
    told = {"model": target.model, "seed": asked.seed, **about(), **early}
    return Result(list(points.values()), wanted.goals, told)


def measurements(console: Console, python: str, sweep: Sweep, target: Target) -> Iterator[Point]:
    """Each point after each round, sent by a process of its own."""
    headers = {"authorization": f"Bearer {target.key}"}
    with (
        driver(python) as sending,
        showing.progress(console) as told,
        closing(httpx.Client(timeout=60, headers=headers)) as http,
    ):
        predict = predicting(http, target.url)
        yield from measuring(
            sweep, target, sending, told, predict, lambda: counted(http, target.url)
        )


def wishes(asked: Asked) -> Wishes:
    """Everything that was asked for, as far as no server is needed. Raises ValueError."""
    loads, arrivals = loads_of(asked)
    arms = [arm.read(text) for text in asked.strategies]
    more = warming(asked.warmup, loads)
    known, lengths, fields = list[Prompt](), list[tuple[int, int]](), sampling(asked)
    if asked.prompts is not None or not (asked.synthetic or arrivals):
        with option("--prompts"):
            known = prompts.load(asked.prompts or prompts.DEFAULT, asked.n + more, asked.seed)
    elif asked.synthetic:
        lengths = prompts.lengths(asked.synthetic, asked.n + more)
    else:
        each = [scaled(one, asked.token_scale) for one in arrivals]
        lengths = each + [each[i % len(each)] for i in range(more)]
        # A made-up prompt has no end of its own: what was recorded is generated, and no less.
        fields = {"ignore_eos": True, **fields}
    found = Wishes(arms, loads, goals.read(asked.goal), fields, known, lengths, more)
    Sweep(arms, loads, known)  # says at once what could not be told apart
    return found


def loads_of(asked: Asked) -> tuple[list[Load], list[Arrival]]:
    """The loads, and the recorded requests of the one that is a replay. Raises ValueError."""
    load.check_above_zero("--speed", asked.speed)
    load.check_above_zero("--token-scale", asked.token_scale)
    loads = load.closed(asked.concurrency) + load.opened(asked.rate, asked.burstiness)
    if asked.replay is None:
        return loads or load.closed("1"), []
    with option("--replay"):
        arrivals = load.recorded(asked.replay, asked.n, asked.speed)
    return [*loads, load.replay(asked.replay.stem, arrivals)], arrivals


def sampling(asked: Asked) -> dict[str, Any]:
    """Further fields of every request's body. Raises ValueError."""
    found = json_object(asked.body, f"--body {asked.body}")
    return found if asked.temperature is None else {**found, "temperature": asked.temperature}


def prompts_for(wanted: Wishes, target: Target, seed: int) -> Sequence[Prompt]:
    """The prompts that are known, or else made up to their lengths."""
    if wanted.prompts:
        return wanted.prompts
    with closing(prompts.Maker(target.url, target.model, target.key, seed)) as maker:
        return maker.made(wanted.lengths)


def scaled(one: Arrival, scale: float) -> tuple[int, int]:
    """Tokens of prompt and answer of a recorded request, made to fit a smaller model."""
    return max(1, round(one.context * scale)), max(1, round(one.generated * scale))


def predicting(http: httpx.Client, url: str) -> Predict:
    """Asks for dry runs before each round, of what the server has seen the like of.

    A server that knows no dry runs is asked once; one that fails to answer says nothing.
    """
    known = True

    def predict(body: Mapping[str, Any]) -> float | None:
        nonlocal known
        if not known or "decoding" not in body:
            return None
        asked = {k: v for k, v in body.items() if k not in ("stream", "stream_options")}
        asked["decoding"] = {**body["decoding"], "dry_run": True}
        try:
            answer = http.post(f"{url}/v1/chat/completions", json=asked).raise_for_status()
            expected = answer.json().get("expected")
        except (httpx.HTTPError, ValueError):
            return None
        known = expected is not None
        return float(expected["generated_tokens"]) if expected and expected["seen"] else None

    return predict
