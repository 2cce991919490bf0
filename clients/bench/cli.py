"""The command line of `satisfice bench`; imports what runs when it is called."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="What each strategy costs under load, measured over HTTP.", invoke_without_command=True
)


@app.callback()
def bench(
    context: typer.Context,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="NAME[:PARAM=VALUE,…], JSON, or LABEL=>either; `none` sends no decoding"),
    ] = None,
    concurrency: Annotated[str, typer.Option(help="closed loops, so many clients: 1,2,4")] = "",
    rate: Annotated[str, typer.Option(help="open loops, requests a second: 0.5,1,2")] = "",
    burstiness: Annotated[float, typer.Option(help="of open loops; 1 is Poisson")] = 1.0,
    replay: Annotated[Path | None, typer.Option(help="recorded arrivals (Azure's CSV)")] = None,
    speed: Annotated[float, typer.Option(help="plays them so many times as fast")] = 1.0,
    token_scale: Annotated[float, typer.Option(help="of their token counts")] = 1.0,
    prompts: Annotated[Path | None, typer.Option(help="prompts (.jsonl or a line each)")] = None,
    synthetic: Annotated[str, typer.Option(help="made-up prompts: INPUT:OUTPUT tokens")] = "",
    n: Annotated[int, typer.Option(min=1, help="measured requests a point and round")] = 64,
    warmup: Annotated[int, typer.Option(min=0, help="requests before them, not counted")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="times; every other one backwards")] = 1,
    max_tokens: Annotated[int | None, typer.Option(help="of one answer")] = None,
    temperature: Annotated[float | None, typer.Option(help="default: the server's")] = None,
    body: Annotated[str, typer.Option(help="more fields of every request, JSON")] = "{}",
    goal: Annotated[str, typer.Option(help="ttft=500,e2e=4000 (ms); also ttfa, tpot")] = "",
    timeout: Annotated[float, typer.Option(help="seconds; longer is a failure")] = 300.0,
    seed: Annotated[int, typer.Option(help="of prompts, arrivals and sampling")] = 0,
    model: Annotated[str | None, typer.Option(help="model id; default: the first")] = None,
    url: Annotated[
        str | None, typer.Option(envvar="SATISFICE_URL", help="default: the built-in server")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all of it here")] = None,
    html: Annotated[Path | None, typer.Option(help="write the report here")] = None,
    load_python: Annotated[
        str, typer.Option(help="interpreter with vLLM, whose bench sends the load")
    ] = sys.executable,
) -> None:
    """Sweep strategies over loads and report latency, cost and accuracy."""
    if context.invoked_subcommand is not None:
        return
    from clients.bench.command import Asked, run

    asked = Asked(
        strategy or ["plain"], concurrency, rate, burstiness, replay, speed, token_scale, prompts,
        synthetic, n, warmup, rounds, max_tokens, temperature, seed, goal, timeout, model,
        load_python, body,
    )  # fmt: skip
    raise typer.Exit(run(asked, url, json_file, html))


@app.command()
def show(
    result: Annotated[Path, typer.Argument(help="a file of --json")],
    markdown: Annotated[bool, typer.Option("--markdown", help="for a document")] = False,
) -> None:
    """Print the tables of a run again."""
    from clients.bench.judging import show as run

    raise typer.Exit(run(result, markdown))


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A, a file of --json")],
    after: Annotated[Path, typer.Argument(help="B")],
    metric: Annotated[list[str] | None, typer.Option(help="figures; default: the usual")] = None,
) -> None:
    """Show what changed between two runs, with 95% intervals."""
    from clients.bench.judging import COMPARED
    from clients.bench.judging import compare as run

    raise typer.Exit(run(before, after, metric or COMPARED))


@app.command()
def gate(
    result: Annotated[Path, typer.Argument(help="a file of --json")],
    bar: Annotated[
        list[str], typer.Option(help="METRIC ARM[/ARM] <=|>= RATIO [@ LOAD]; without /ARM: against")
    ],
    against: Annotated[Path | None, typer.Option(help="a baseline of --json")] = None,
    strict: Annotated[bool, typer.Option(help="an interval across the bar fails too")] = False,
) -> None:
    """Check bars for CI; exit 1 if one fails."""
    from clients.bench.judging import check

    raise typer.Exit(check(result, against, bar, strict))
