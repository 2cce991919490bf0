"""The documentation page of a strategy, made from its code alone.

`scripts/docs` writes docs/strategies.md from these; a test holds the file to them.
"""

import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from decoders.core.base import Decoder, Field
from decoders.core.parameters import rows
from decoders.core.registry import find, names, schema

HEAD = """# Strategies

Made from the code by `scripts/docs`. Every strategy is chosen per request, by the body field
`decoding` or by the model id `MODEL@STRATEGY`; `satisfice strategies NAME` prints the same table.
"""


def every() -> str:
    """The whole of docs/strategies.md."""
    return "\n".join([HEAD, *(page(name) for name in names())])


def page(name: str) -> str:
    """One strategy: what it does, where it is from, its parameters, what it honours."""
    return "\n".join(_lines(find(name), schema(name)))


def _lines(strategy: Decoder, fields: dict[str, Any]) -> Iterator[str]:
    yield f"## `{strategy.name}`\n"
    yield f"{_about(strategy)}\n"
    yield f"Source: {strategy.source}. {_honours(strategy)}\n"
    told = list(rows(fields))
    if told:
        yield "| parameter | type | range | default | meaning |\n|---|---|---|---|---|"
        yield from (_row(*row) for row in told)
        yield ""
    if strategy.null is not None:
        yield f"With {_call(strategy.null.options)} it equals `{strategy.null.equals}`" + (
            " at temperature 0.\n" if strategy.null.greedy else ".\n"
        )


def _about(strategy: Decoder) -> str:
    """The module's docstring: its first line, then its paragraphs."""
    told = inspect.getdoc(sys.modules[strategy.body.__module__]) or strategy.summary
    return told.replace("\n\nSource:", "\n\nFrom")


def _honours(strategy: Decoder) -> str:
    refused = sorted(field.value for field in Field if field not in strategy.honours)
    if not refused:
        return "Every request field is honoured."
    return "Refused with 400: " + ", ".join(f"`{name}`" for name in refused) + "."


def _row(name: str, kind: str, limits: str, default: str, meaning: str) -> str:
    kind, limits = kind.replace("|", "or"), limits.replace("|", "or")
    return f"| `{name}` | {kind} | {limits} | `{default}` | {meaning} |"


def _call(options: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}={json.dumps(value)}`" for key, value in options.items())
