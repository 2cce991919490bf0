"""The public face: version, `decoding(...)` and the entry points; everything is imported lazily.

`decoding` writes the body field of a request, for use with the `openai` client:

    client.chat.completions.create(
        model="reasoner",
        messages=[{"role": "user", "content": "What is 12 * 3 + 4 * 5?"}],
        extra_body=satisfice.decoding("parallel_thinking", paths=8),
    )
"""

from clients.decoding import decoding

__version__ = "0.1.0"
__all__ = ["__version__", "decoding", "main", "register_vllm"]


def main() -> None:
    """The `satisfice` command: the server's commands and the clients' side by side."""
    import typer

    import clients.cli
    import server.cli

    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,
        help="An OpenAI-compatible server whose decoding strategy is chosen per request.",
    )

    def told(wanted: bool) -> None:
        if wanted:
            typer.echo(__version__)
            raise typer.Exit

    version = typer.Option(
        False, "--version", callback=told, is_eager=True, help="Show the version and exit."
    )

    @app.callback()
    def begin(version: bool = version) -> None:
        pass

    server.cli.add(app)
    clients.cli.add(app)
    app()


def register_vllm() -> None:
    """What vLLM calls in each process that it starts."""
    from engines.vllm.plugin import register

    register()


if __name__ == "__main__":
    main()
