"""What is compared: a strategy with parameters, as it is named on the command line.

`plain`, `parallel_thinking:paths=8,thinking_budget=400`, or the whole `decoding` object as JSON; a
name before `=>` is what tables call it. Knows no strategy: the server judges parameters.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clients.bench.reading import json_object


@dataclass(frozen=True)
class Arm:
    """A strategy under test: its name in tables and the `decoding` field of its requests.

    `decoding` empty sends none, which any OpenAI-compatible server understands.
    """

    name: str
    decoding: Mapping[str, Any]


def read(text: str) -> Arm:
    """The arm that is meant. Raises ValueError."""
    name, arrow, rest = text.partition("=>")
    name, rest = (name.strip(), rest.strip()) if arrow else ("", text.strip())
    if rest in ("none", ""):
        return Arm(name or "none", {})
    if rest.startswith("{"):
        decoding = json_object(rest, f"--strategy {text}")
        return Arm(name or str(decoding.get("strategy", "default")), decoding)
    strategy, _, listed = rest.partition(":")
    params = {}
    for pair in _split(listed):
        key, sign, value = pair.partition("=")
        if not sign:
            raise ValueError(f"--strategy {text}: {pair!r} is not NAME=VALUE")
        params[key.strip()] = _value(value.strip())
    shown = strategy + (f"[{listed}]" if params else "")
    return Arm(name or shown, {"strategy": strategy, "params": params})


def _split(listed: str) -> list[str]:
    """Parts between commas that stand outside brackets."""
    parts, depth = [""], 0
    for sign in listed:
        depth += (sign in "[{") - (sign in "]}")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return [part for part in parts if part]


def _value(text: str) -> Any:
    """JSON where it is, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
