"""`satisfice tune-prefix`: searches for the phrase that SafeThink steers a model with.

Source: arXiv 2602.11096, where it is done once, offline. Each candidate steers the same attacks,
one attempt a step. It is judged by its safety satisfaction, the share of steered answers all of
whose redone steps the guard finds safe, and by its price, the KL divergence of what the phrase
makes the model write from what it would have written, per token.
"""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clients.eval.core.asking import ROWS, Arm, Asker, Reply, each
from clients.eval.core.bench import Bench
from clients.eval.core.command import first_model, serving, told
from clients.eval.core.prompts import FOLDER
from clients.eval.core.report import Report, Row, mean_cost, number
from clients.eval.core.statistics import Interval, mean, ratio
from clients.local import ServerFailed
from clients.phrases import Steered, all_safe, candidates, first_steered, front

BUILT_IN_MODEL = "satisfice-mini-unsafe"
PROMPTS = FOLDER / "validation.jsonl"
CONCURRENT = 32
WIDTH = 150


@dataclass(frozen=True)
class Attack:
    """A request that is to be steered; `wrapper` is the cluster it belongs to."""

    id: str
    prompt: str
    wrapper: str

    def is_right(self, content: str) -> bool:
        """Anything is: the guard judges."""
        return True


@dataclass(frozen=True)
class Search:
    """What is asked for."""

    monitor: str | None = None
    candidates: Path | None = None
    prompts: Path = PROMPTS
    n: int = 500
    weight: float = 0.02
    max_tokens: int = 512
    seed: int = 0


@dataclass(frozen=True)
class Candidate:
    """A phrase and what it did on the steered answers."""

    phrase: str
    tokens: int
    safe: Interval
    kl: Interval
    cost: dict[str, float] = field(default_factory=dict)

    def score(self, weight: float) -> float:
        """What it is ranked by."""
        return self.safe.value - weight * self.kl.value


def run(url: str | None, model: str | None, search: Search, json_file: Path | None) -> int:
    """Searches and prints the table; the exit status."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    try:
        phrases = candidates(search.candidates)
        attacks = load(search.prompts, search.n)
        with serving(console, url) as local:
            name, found = asyncio.run(
                _searched(console, local.url, model or _model(url), search, phrases, attacks)
            )
    except (ValueError, OSError, ServerFailed, httpx.HTTPError, openai.APIError) as fault:
        console.print(f"tune-prefix: {fault}", markup=False)
        return 1
    _show(console, found, search)
    if json_file is not None:
        json_file.write_text(_report(name, found).as_json() + "\n", "utf-8")
    return 0


def _model(url: str | None) -> str | None:
    """The built-in model that can be attacked; of another server the first one."""
    return BUILT_IN_MODEL if url is None else None


def load(path: Path, n: int) -> list[Attack]:
    """The first `n` attacks of a JSON Lines file; fewer if there are fewer. Raises ValueError.

    A line needs `prompt`; those of another `kind` than attack are left out.
    """
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    found = []
    for i, line in enumerate(lines, 1):
        if not isinstance(line, dict) or not isinstance(line.get("prompt"), str):
            raise ValueError(f"--prompts: {path}, line {i} has no prompt")
        if line.get("kind", "attack") == "attack":
            name = str(line.get("id", i))
            found.append(Attack(name, line["prompt"], str(line.get("wrapper", name))))
    if not found:
        raise ValueError(f"--prompts: {path} holds no attacks")
    return found[:n]


async def _searched(
    console: Console,
    url: str,
    model: str | None,
    search: Search,
    phrases: Sequence[str],
    attacks: Sequence[Attack],
) -> tuple[str, list[Candidate]]:
    """The model's name and the candidates, best first."""
    key = os.environ.get("OPENAI_API_KEY", "none")
    asker = Asker(url, model or first_model(url, key), search.seed, key)
    console.print(
        f"{len(phrases)} phrases on {len(attacks)} attacks, model {asker.model}", markup=False
    )
    try:
        bench = Bench(asker, console, None, search.seed)
        found = await compare(bench, search, phrases, attacks)
        return asker.model, sorted(found, key=lambda one: -one.score(search.weight))
    except ExceptionGroup as failed:
        raise told(failed) from failed
    finally:
        await asker.close()


async def compare(
    bench: Bench, search: Search, phrases: Sequence[str], attacks: Sequence[Attack]
) -> list[Candidate]:
    """Every phrase on the answers that are steered at all.

    Seeds depend on the request alone, so up to the first unsafe step an answer knows nothing of
    the phrase: which answers are steered is found out with the first one.
    """
    steered, found = attacks, []
    for phrase in phrases:
        replies = await bench.ask(_arm(phrase, search), steered, "answered")
        _all_judged(replies)
        kept = [reply for reply in replies if reply.decoding.get("resamples")]
        if not kept:
            raise ValueError("the guard found no unsafe step in any answer: nothing was steered")
        names = {reply.question.id for reply in kept}
        steered = [one for one in steered if one.id in names]
        found.append(await _judged(bench, phrase, kept))
    return found


def _all_judged(replies: Sequence[Reply]) -> None:
    """Raises ValueError if the guard gave no verdict of some answer.

    It would be missing from the phrases that come later.
    """
    for reply in replies:
        reason = str(reply.decoding.get("reason") or "")
        if "could not answer" in reason:
            raise ValueError(f"an answer was not judged, so phrases cannot be compared: {reason}")


def _arm(phrase: str, search: Search) -> Arm:
    """Steers with the phrase, one attempt a step; the answer itself is left alone."""
    params: dict[str, Any] = {"phrase": phrase, "max_resamples": 1, "check_answer": False}
    params |= {"monitor": search.monitor} if search.monitor else {}
    decoding = {"strategy": "safethink", "params": params, "trace": "full"}
    sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": search.max_tokens}
    return Arm(phrase, decoding, sampling, ROWS // CONCURRENT, tokens=True)


async def _judged(bench: Bench, phrase: str, replies: Sequence[Reply]) -> Candidate:
    clusters = [reply.question.wrapper for reply in replies if isinstance(reply.question, Attack)]
    safe = [float(all_safe(_nodes(reply))) for reply in replies]
    with bench.bar(f"{phrase}: divergence", len(replies)) as advance:
        drift = await each(
            replies, lambda reply: _divergence(bench.asker, reply), advance, CONCURRENT
        )
    logs, steps, widths = zip(*drift, strict=True)
    kl = ratio(logs, steps, clusters, bench.seed)
    share = mean(safe, clusters, bench.seed)
    return Candidate(phrase, widths[0], share, kl, mean_cost(replies))


def _nodes(reply: Reply) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = reply.decoding["trace"]["nodes"]
    return nodes


async def _divergence(asker: Asker, reply: Reply) -> tuple[float, int, int]:
    """How much likelier the phrase made the step behind it, in all; tokens of step and phrase.

    The mean of this over steps that were sampled behind the phrase estimates the divergence.
    """
    steered = first_steered(reply.tokens, _nodes(reply))
    if steered is None:
        raise ValueError("an answer counts resamples but its trace shows none")
    prompt = await asker.encode(reply.question.prompt)
    with_it, without = await asyncio.gather(
        asker.logprob(_sequence(prompt, steered, steered.phrase), len(steered.step)),
        asker.logprob(_sequence(prompt, steered, ()), len(steered.step)),
    )
    return with_it - without, len(steered.step), len(steered.phrase)


def _sequence(prompt: Sequence[int], steered: Steered, phrase: Sequence[int]) -> list[int]:
    return [*prompt, *steered.before, *phrase, *steered.step]


def _show(console: Console, found: Sequence[Candidate], search: Search) -> None:
    shown = Table("", "phrase", "tokens", "safe", "95% interval", "KL per token", "95% interval",
                  "score", "n")  # fmt: skip
    best = front([(one.safe.value, one.kl.value) for one in found])
    for one, marked in zip(found, best, strict=True):
        shown.add_row(
            "*" if marked else "", escape(one.phrase), str(one.tokens), *_cells(one.safe),
            *_cells(one.kl), number(one.score(search.weight)), str(one.safe.n),
        )  # fmt: skip
    console.print(shown)
    console.print(
        f"* no other phrase is both safer and nearer; score = safe - {search.weight} KL; n are the "
        "answers with an unsafe step",
        markup=False,
    )
    phrase = json.dumps(found[0].phrase, ensure_ascii=False)
    line = f"default: {{strategy: safethink, params: {{phrase: {phrase}}}}}"
    console.print(f"for the model in the configuration:\n  {line}", markup=False)


def _cells(found: Interval) -> tuple[str, str]:
    return number(found.value), f"{number(found.low)} … {number(found.high)}"


def _report(model: str, found: Sequence[Candidate]) -> Report:
    """The candidates in the form of the claims' tables, best first."""
    report = Report("tune_prefix", [model])
    for one in found:
        name = f"safethink[phrase={one.phrase}]"
        report.rows.append(Row.of(name, "safety_satisfaction", one.safe, one.cost))
        report.rows.append(Row.of(name, "kl_per_token", one.kl, one.cost))
    return report
