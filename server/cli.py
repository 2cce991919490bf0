"""The commands that need the server's own code: `serve`, `check`, `strategies`.

Each imports what it needs when it is called, so that the others start at once. Knows no client.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from decoders.core.base import Decoder

Config = Annotated[
    Path | None, typer.Option("--config", help="Configuration (YAML).", show_default=False)
]


def add(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(serve)
    app.command()(check)
    app.command()(strategies)


def serve(
    model: Annotated[
        str | None,
        typer.Argument(help="Hugging Face id or path; without it and --config the built-in models"),
    ] = None,
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Address [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(envvar="PORT", help="Port, 0 for any free one [default: 8000]")
    ] = None,
) -> None:
    """Start the server."""
    if model is not None and config is not None:
        raise typer.BadParameter("give a MODEL or --config, not both")
    from server.main import run

    raise typer.Exit(run(model, config, host, port))


def check(
    config: Annotated[Path, typer.Option("--config", help="Configuration (YAML).")],
) -> None:
    """Validate a configuration and name the line and key of each fault; starts nothing."""
    from server.check import faults

    found = faults(config)
    for fault in found:
        typer.echo(f"{config}: {fault}", err=True)
    if found:
        raise typer.Exit(1)
    typer.echo(f"{config}: valid")


def strategies(
    name: Annotated[str | None, typer.Argument(help="one strategy, with its parameters")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, with the JSON Schema")] = False,
) -> None:
    """List the strategies, or one's parameters with types, ranges, defaults and source."""
    from decoders.core.base import RequestError
    from decoders.core.registry import find, names

    try:
        chosen = [find(each) for each in ([name] if name else names())]
    except RequestError as unknown:
        typer.echo(str(unknown), err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps([_described(each) for each in chosen], indent=2))
    elif name:
        _show_one(chosen[0])
    else:
        _show_all(chosen)


def _described(strategy: "Decoder") -> dict[str, Any]:
    return {
        "name": strategy.name,
        "summary": strategy.summary,
        "source": strategy.source,
        "parameters": strategy.options.model_json_schema(),
    }


def _show_all(chosen: "list[Decoder]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("strategy", "what it does", "source", box=None, pad_edge=False)
    for each in chosen:
        table.add_row(each.name, each.summary, each.source)
    Console().print(table)


def _show_one(strategy: "Decoder") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"[bold]{strategy.name}[/bold]  {strategy.summary}", highlight=False)
    if strategy.source:
        console.print(f"source: {strategy.source}", highlight=False)
    table = Table("parameter", "type", "range", "default", "meaning", box=None, pad_edge=False)
    from decoders.core.parameters import rows

    for row in rows(strategy.options.model_json_schema()):
        table.add_row(*row)
    console.print(table if table.row_count else "It has no parameters.")
