"""`satisfice eval`: finds the claim, a server for it, runs it and writes what was found."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import cast

import httpx
import openai
from rich.console import Console

from clients.eval.core.asking import Asker
from clients.eval.core.bench import Bench, Claim
from clients.eval.core.report import Report
from clients.local import Local, ServerFailed, started

WIDTH = 150
HERE = Path(__file__).resolve().parent.parent


def claims() -> list[str]:
    """The claims there are, by file name."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem != "__init__")


def run(
    name: str | None,
    url: str | None,
    n: int | None,
    seed: int,
    json_file: Path | None,
    plot: Path | None,
    settings: Sequence[str],
    config: Path | None = None,
    keep: Path | None = None,
) -> int:
    """Runs one claim, or lists them; the exit status."""
    # Where nobody looks at it, a table need not fit a screen.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    if name is None:
        _list(console)
        return 0
    try:
        claim = find(name)
        options = chosen(claim, settings)
        with serving(console, url, config) as local:
            report = asyncio.run(_measure(console, claim, local.url, n, seed, options, keep))
    except (ValueError, OSError, ServerFailed, httpx.HTTPError) as fault:
        console.print(f"eval: {fault}", markup=False)
        return 1
    _show(console, report)
    if json_file is not None:
        json_file.write_text(report.as_json() + "\n", "utf-8")
    if plot is not None:
        claim.draw(report, plot)
    return 0


def find(name: str) -> Claim:
    """The claim of that name. Raises ValueError."""
    if name not in claims():
        raise ValueError(f"there is no claim {name!r}; there are: {', '.join(claims())}")
    return cast(Claim, import_module(f"clients.eval.{name}"))


def chosen(claim: Claim, settings: Sequence[str]) -> dict[str, str]:
    """The claim's options with NAME=VALUE settings put in. Raises ValueError."""
    options = dict(claim.OPTIONS)
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign or key not in options:
            known = ", ".join(f"{k}={v}" for k, v in options.items())
            raise ValueError(f"--set {setting}: the options are {known}")
        options[key] = value
    return options


def _list(console: Console) -> None:
    for name in claims():
        claim = find(name)
        console.print(f"{name}  {claim.TITLE}", markup=False)
        for key, value in claim.OPTIONS.items():
            console.print(f"    --set {key}={value}", style="dim", markup=False)


def serving(
    console: Console, url: str | None, config: Path | None = None
) -> AbstractContextManager[Local]:
    """The server at `url`; without it one of our own for as long as it is needed.

    Ours has the built-in models, or what is configured in a file.
    """
    if url is not None:
        return nullcontext(Local(url.rstrip("/"), Path()))
    return started(console, () if config is None else ("--config", str(config)))


async def _measure(
    console: Console,
    claim: Claim,
    url: str,
    n: int | None,
    seed: int,
    options: Mapping[str, str],
    keep: Path | None,
) -> Report:
    """Runs the claim; a request that the server refuses is a ValueError with its text."""
    key = os.environ.get("OPENAI_API_KEY", "none")
    asker = Asker(url, options.get("model") or first_model(url, key), seed, key)
    console.print(f"{claim.TITLE}\nmodel: {asker.model}, seed {seed}", markup=False)
    try:
        return await claim.measure(Bench(asker, console, n, seed, options, keep))
    except ExceptionGroup as failed:
        raise told(failed) from failed
    finally:
        await asker.close()


def told(failed: "ExceptionGroup[Exception]") -> Exception:
    """What to raise for requests that failed side by side: the server's text if it refused."""
    refused = failed.subgroup(openai.APIError)
    return ValueError(str(_first(refused))) if refused else failed


def _first(group: BaseException) -> BaseException:
    """The first exception that is no group."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def first_model(url: str, key: str) -> str:
    """The first model that is no virtual id. Raises ValueError if there is none."""
    headers = {"authorization": f"Bearer {key}"}
    listed = httpx.get(f"{url}/v1/models", headers=headers, timeout=30).raise_for_status().json()
    own = (model for model in listed["data"] if model.get("root", model["id"]) == model["id"])
    names: list[str] = [model["id"] for model in own]
    if not names:
        raise ValueError(f"{url} serves no model")
    return names[0]


def _show(console: Console, report: Report) -> None:
    console.print(report.table())
    for note in report.notes:
        console.print(note, markup=False)
    for text, held in report.verdicts:
        console.print(f"{'holds' if held else 'does not hold'}: {text}", markup=False)
