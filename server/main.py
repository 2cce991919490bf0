"""`satisfice serve`: from the command line's words to a running server."""

import sys
from pathlib import Path

from server.settings import SettingsError, load


def run(
    model: str | None = None,
    config: Path | str | None = None,
    host: str | None = None,
    port: int | None = None,
) -> int:
    """Serves a configuration, one model, or the built-in models; returns the exit status."""
    try:
        settings = load(config, model)
    except SettingsError as fault:
        print(fault, file=sys.stderr)
        return 1
    # The web framework loads only once the configuration is known to be right.
    from server.serve import serve

    return serve(settings, host, port)
