"""A strategy's parameters as a reader sees them, from their JSON Schema.

The command line and the documentation both print these rows; nothing here knows a strategy.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def rows(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Name, type, range, default and meaning of each parameter of a JSON Schema object."""
    definitions = schema.get("$defs", {})
    for name, of in schema.get("properties", {}).items():
        forms = [_resolved(form, definitions) for form in of.get("anyOf", [of])]
        kinds = " or ".join(dict.fromkeys(_kind(form) for form in forms))
        limits = ", ".join(filter(None, map(_limits, forms)))
        default = json.dumps(of["default"]) if "default" in of else "required"
        yield name, kinds, limits, default, of.get("description", "")


def _resolved(form: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = form.get("$ref", "").removeprefix("#/$defs/")
    return definitions.get(reference, form) if reference else form


def _kind(form: Mapping[str, Any]) -> str:
    """A type's name, a choice's alternatives."""
    if "enum" in form:
        return " | ".join(map(str, form["enum"]))
    if "oneOf" in form:
        return "object"
    if form.get("type") == "array":
        return f"list of {_kind(form.get('items', {}))}"
    return str(form.get("const", form.get("type", "any")))


def _limits(form: Mapping[str, Any]) -> str:
    """`>= 1`, `<= 8` and the like, as the schema has them."""
    signs = {
        "minimum": ">= {}",
        "exclusiveMinimum": "> {}",
        "maximum": "<= {}",
        "exclusiveMaximum": "< {}",
        "minLength": "length >= {}",
        "maxLength": "length <= {}",
        "minItems": "items >= {}",
        "maxItems": "items <= {}",
    }
    return " and ".join(sign.format(form[key]) for key, sign in signs.items() if key in form)
