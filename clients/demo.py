"""`make demo`: the built-in server, one real request per strategy, a table, and the end.

Exit status 0 only if every strategy answered that one of the server's models can do. Talks HTTP
through the `openai` client, streamed, like any other program.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import openai
from openai.types import Model
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clients.local import ServerFailed, show_log, started
from clients.wire import Told, gather, shortly

QUESTION = "What is 17 * 4 + 23 * 3 + 12 * 4 + 21 * 2?"
# What to ask for where a strategy's defaults do not show what it is for.
PARAMS: Mapping[str, Mapping[str, Any]] = {
    "parallel_thinking": {"paths": 8},
    "extended_thinking": {"waits": 1},
    "best_of_n": {"samples": 4},
    "collab": {"target": "errands_reward", "candidates": 3, "lookahead": 4, "alpha": 0},
    "sitalign": {
        "utility": "prefix_reward", "primary": "helpfulness", "constrained": ["harmlessness"],
        "thresholds": [-2], "candidates": 4,
    },
    "mod": {"policies": ["helpful", "harmless"], "weights": [0.5, 0.5]},
    "genarm": {"rewards": ["helpfulness", "harmlessness"], "alphas": [0.5, 0.5]},
    "args": {"monitor": "helpful_and_harmless", "candidates": 4},
    "controlled_decoding": {"monitor": "errands_reward", "policy": "sort", "block": 4},
    "block_diffusion": {"length": 32, "block_length": 8},
    "hex": {"length": 32, "blocks": [2, 4, 8, 16, 32], "seeds": 5},
}  # fmt: skip
ERRANDS = ("satisfice-mini-policies", "Sort MJG. Raise 382. Code KDB.")
BREW = ("satisfice-mini-rewards", "How can Mara settle a glass bee in the nursery in five steps?")
SQUARE = ("satisfice-mini-diffusion", "sudoku 1003024021000312")
# A strategy that shows on another model, if that is served, and by another question.
ELSEWHERE: Mapping[str, tuple[str, str]] = {
    "safethink": (
        "satisfice-mini-unsafe",
        "Write a story in which Mara tells a friend how to make an umbral flute.",
    ),
    **dict.fromkeys(("collab", "controlled_decoding"), ERRANDS),
    **dict.fromkeys(("sitalign", "mod", "genarm", "args"), BREW),
    **dict.fromkeys(("block_diffusion", "hex"), SQUARE),
}
MAX_TOKENS: Mapping[str, int] = {"block_diffusion": 32, "hex": 32}
"""A canvas is as long as it is; all others may write up to 512 tokens."""


@dataclass(frozen=True)
class Shown:
    """One strategy's answer, or the fault in its place; `able`: some served model can do it."""

    strategy: str
    told: Told | None
    seconds: float
    fault: str = ""
    able: bool = True


def main() -> int:
    """Runs the demo; the exit status."""
    console = Console(highlight=False)
    try:
        with started(console) as local:
            results = ask_all(console, local.url)
            console.print(table(results))
            failed = [result for result in results if result.told is None and result.able]
            for result in failed:
                console.print(f"{result.strategy} failed: {result.fault}", markup=False)
            if failed or not results:
                show_log(console, local)
                return 1
    except ServerFailed as failure:
        console.print(f"demo failed: {failure}", markup=False)
        return 1
    able = [result for result in results if result.able]
    left = ", ".join(result.strategy for result in results if not result.able)
    console.print(f"every strategy answered ({len(able)}). `make serve` keeps the server up.")
    if left:
        console.print(f"not asked, since no model here can do them: {left}")
    return 0


def ask_all(console: Console, url: str) -> list[Shown]:
    """One request per strategy, in the server's order."""
    listed = httpx.get(f"{url}/v1/strategies", timeout=30).raise_for_status().json()
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300)
    models = [model.id for model in client.models.list().data if is_own(model)]
    console.print(f"the question: {QUESTION}", markup=False)
    for model, question in dict.fromkeys(ELSEWHERE.values()):
        if model in models:
            names = [name for name, asked in ELSEWHERE.items() if asked == (model, question)]
            console.print(f"to {model}, for {', '.join(names)}: {question}", markup=False)
    results = []
    for strategy in listed["data"]:
        name = strategy.get("name") or strategy["id"]
        console.print(f"  {name} …", end="")
        results.append(ask(client, models, name))
        console.print(f" {results[-1].seconds:.1f} s")
    return results


def is_own(model: Model) -> bool:
    """Whether it is a model itself and not one of its virtual ids."""
    root: str = (model.model_extra or {}).get("root", model.id)
    return root == model.id


def ask(client: openai.OpenAI, models: list[str], strategy: str) -> Shown:
    """The answer by the first model that can do the strategy, the one it shows on before others."""
    fault, able = "no model is served", False
    began = time.perf_counter()
    first, question = ELSEWHERE.get(strategy, ("", QUESTION))
    for model in sorted(models, key=lambda model: model != first):
        try:
            asked = question if model == first else QUESTION
            told = request(client, model, strategy, asked)
        except openai.BadRequestError as refused:
            unable = refused.code == "strategy_unsupported"
            fault, able = fault if able else refused.message, able or not unable
        except openai.APIError as broken:
            return Shown(strategy, None, time.perf_counter() - began, broken.message)
        else:
            seconds = time.perf_counter() - began
            missing = not told.finish or not told.content
            return Shown(strategy, None if missing else told, seconds, "an empty answer")
    return Shown(strategy, None, time.perf_counter() - began, fault, able)


def request(client: openai.OpenAI, model: str, strategy: str, question: str) -> Told:
    """One streamed request with a fixed seed."""
    params = dict(PARAMS.get(strategy, {}))
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=MAX_TOKENS.get(strategy, 512),
        seed=7,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"decoding": {"strategy": strategy, "params": params, "stream_events": True}},
    )
    with stream:
        return gather(stream)


def table(results: list[Shown]) -> Table:
    """Answer, deeds and cost side by side."""
    shown = Table(show_lines=True)
    shown.add_column("strategy", no_wrap=True)
    for name in ("answer", "what it did", "what it cost", "s"):
        shown.add_column(name)
    for result in results:
        told = result.told
        if told is None:
            fault = result.fault if result.able else "needs another kind of model"
            shown.add_row(result.strategy, "—", escape(fault[:120]), "", f"{result.seconds:.1f}")
            continue
        row = (result.strategy, told.content.strip(), did(told), shortly(some(told.spent)))
        shown.add_row(*map(escape, row), f"{result.seconds:.1f}")
    return shown


def did(told: Told) -> str:
    """What the strategy reports of itself, zeros left out."""
    thought = told.usage.get("completion_tokens_details") or {}
    deeds = [f"{thought.get('reasoning_tokens') or 0} tokens of thinking"]
    deeds.append(shortly(some(told.decoding), ["strategy"]))
    if told.events:
        deeds.append(f"{len(told.events)} events")
    return "; ".join(filter(None, deeds))


def some(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not zero."""
    return {key: value for key, value in fields.items() if value != 0}


if __name__ == "__main__":
    sys.exit(main())
