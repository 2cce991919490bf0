"""The commands that talk HTTP: `chat`, `eval`, `bench`, `tune-prefix`.

Imports what each needs when it is called.
"""

from pathlib import Path
from typing import Annotated

import typer

from clients.bench.cli import app as bench

Url = Annotated[str, typer.Option(envvar="SATISFICE_URL", help="the server")]


def add(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(chat)
    app.command(name="eval")(evaluate)
    app.command(name="tune-prefix")(tune_prefix)
    app.add_typer(bench, name="bench")


def chat(
    model: Annotated[str | None, typer.Option(help="model id; default: the first")] = None,
    strategy: Annotated[str | None, typer.Option(help="default: the model's own")] = None,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Chat in the terminal and see interventions as they happen."""
    from clients.chat import talk

    raise typer.Exit(talk(url, model, strategy))


def evaluate(
    claim: Annotated[str | None, typer.Argument(help="which claim; none lists them")] = None,
    url: Annotated[
        str | None, typer.Option(help="a running server; without it the built-in one is started")
    ] = None,
    n: Annotated[int | None, typer.Option(min=1, help="questions; default: the claim's")] = None,
    seed: Annotated[int, typer.Option(help="of sampling and of every bootstrap")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the table here")] = None,
    plot: Annotated[Path | None, typer.Option(help="write a picture here (.png)")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, an option of the claim")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="a configuration for the server that is started")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="folder of answers: those in it are not asked again")
    ] = None,
) -> None:
    """Repeat a paper's claim on the miniature models and print the table."""
    from clients.eval.core.command import run

    raise typer.Exit(run(claim, url, n, seed, json_file, plot, options or [], config, keep))


def tune_prefix(
    url: Annotated[
        str | None, typer.Option(help="a running server; without it the built-in one is started")
    ] = None,
    model: Annotated[str | None, typer.Option(help="model id; default: the first")] = None,
    monitor: Annotated[str | None, typer.Option(help="who judges; default: the guard")] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="more phrases, one a line, beside the built-in ones")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="attacks (JSON Lines with `prompt`); default: built-in")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="attacks")] = 500,
    weight: Annotated[
        float, typer.Option(min=0, help="price of one nat of divergence per token")
    ] = 0.02,
    seed: Annotated[int, typer.Option(help="of sampling and of every bootstrap")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the table here")] = None,
) -> None:
    """Search for the phrase that SafeThink steers a model with."""
    from clients.tune_prefix import PROMPTS, Search, run

    search = Search(monitor, candidates, prompts or PROMPTS, n, weight, seed=seed)
    raise typer.Exit(run(url, model, search, json_file))
