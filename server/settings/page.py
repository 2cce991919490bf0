"""Makes docs/configuration.md from the configuration's own models, so that neither can lie.

`scripts/docs` writes it; a test compares.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from monitors.core.spec import MonitorSpec as EveryMonitor
from server.settings import kinds
from server.settings.spec import (
    BudgetSpec,
    EngineSpec,
    KeySpec,
    Limits,
    ModelSpec,
    MonitorSpec,
    Rate,
    Section,
    ServerSpec,
    Settings,
    StrategySpec,
)

Schema = Mapping[str, Any]
OUTSIDE = frozenset({"kind", "lazy", "on_monitor_error"})
"""Keys that stand in a section of their own."""
SECTIONS: tuple[tuple[str, type[Section]], ...] = (
    ("", Settings),
    ("server", ServerSpec),
    ("engines.ID", EngineSpec),
    ("monitors.NAME", MonitorSpec),
    ("models.ID", ModelSpec),
    ("models.ID.default, models.ID.presets.NAME", StrategySpec),
    ("keys.NAME", KeySpec),
    ("keys.NAME.budget", BudgetSpec),
    ("keys.NAME.rate", Rate),
    ("limits", Limits),
)
HEAD = """\
# Configuration

`satisfice serve --config FILE` reads one YAML file; `satisfice check --config FILE` names every
fault in it with line and key and starts nothing. Without a file the server runs
[`server/builtin.yaml`](../server/builtin.yaml), which is an example to begin with;
`satisfice serve MODEL` makes a configuration of one vLLM engine and finds the model's think markers
itself. Unknown keys and keys given twice are faults.

`builtin:NAME` names a miniature model that comes with the server. A `model`, `tokenizer` or member
that begins with `./`, `../` or `~/` is a path, relative to the configuration file; `chat_template`,
`calibration`, `words_file` and `keys_file` always are. Anything else is a Hugging Face id.

API keys come from `keys`, from `keys_file` and from the environment variable `SATISFICE_API_KEYS`
(comma-separated); without any the server is open to all who reach it. Salts that keep the prefix
caches of different keys apart are made from the secret in `SATISFICE_SECRET`; where it is not set,
one is drawn at each start.

This page is made from the code by `scripts/docs`.
"""


def document() -> str:
    """The whole page."""
    parts = [HEAD]
    parts += [_section(f"`{place}`" if place else "Sections", model) for place, model in SECTIONS]
    parts.append("## Keys of each kind of engine\n")
    parts += [_kind(kind, kinds.engine_spec(kind)) for kind in kinds.engine_kinds()]
    parts.append("## Keys of each kind of monitor\n")
    parts += ["Every kind takes these:\n", "\n".join(_table(rows(EveryMonitor, without=OUTSIDE)))]
    parts += [_kind(kind, kinds.monitor_spec(kind)) for kind in kinds.monitor_kinds()]
    return "\n".join(parts)


def rows(model: type[BaseModel], *, without: frozenset[str] = frozenset()) -> Iterator[str]:
    """A table row for each key of a model."""
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        if name not in without:
            own = schema["properties"][field.alias or name]
            default = field.get_default(call_default_factory=True)
            shown = "required" if default is PydanticUndefined else f"`{_plain(default)}`"
            meaning = " ".join((field.description or "").split())
            cells = (f"`{field.alias or name}`", typed(own), shown, meaning)
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def typed(schema: Schema) -> str:
    """A JSON Schema's type in words."""
    if "$ref" in schema:
        return "mapping"
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(typed(choice) for choice in choices))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        items: Schema = schema.get("items") or next(iter(schema.get("prefixItems", [])), {})
        return f"list of {typed(items)}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return "mapping" if not isinstance(inner, Mapping) else f"mapping of {typed(inner)}"
    return str(schema.get("type", "any")) + _bounds(schema)


def _bounds(schema: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {schema[name]}" for name, sign in signs.items() if name in schema]
    return f" {', '.join(told)}" if told else ""


def _plain(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "{}"
    if isinstance(value, tuple):
        value = list(value)
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError:
        text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _section(title: str, model: type[Section]) -> str:
    about = " ".join((model.__doc__ or "").split())
    return "\n".join([f"## {title}", "", about, "", *_table(rows(model))])


def _kind(kind: str, model: type[BaseModel] | None) -> str:
    if model is None:
        return f"### `{kind}`\n"
    common = OUTSIDE | frozenset(filter(lambda name: _inherited(model, name), model.model_fields))
    about = " ".join((model.__doc__ or "").split())
    return "\n".join([f"### `{kind}`", "", about, "", *_table(rows(model, without=common))])


def _inherited(model: type[BaseModel], name: str) -> bool:
    """Whether a kind of monitor takes this key as all kinds do."""
    every = EveryMonitor.model_fields.get(name)
    own = model.model_fields[name]
    return issubclass(model, EveryMonitor) and every is not None and own.default == every.default


def _table(lines: Iterator[str]) -> list[str]:
    return ["| key | type | default | meaning |", "|---|---|---|---|", *lines, ""]
