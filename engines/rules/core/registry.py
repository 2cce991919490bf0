"""Finds rules by their file names and checks what is asked of one before it reaches a worker."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pydantic import ValidationError

import engines.rules
from engines.rules.core.base import PolicyRule
from engines.rules.core.cast import Cast, Parameters, RuleFault

FLAT = (str, int, float, bool, type(None))


@cache
def names() -> tuple[str, ...]:
    """The rules there are, sorted."""
    found = iter_modules(engines.rules.__path__)
    return tuple(sorted(module.name for module in found if not module.ispkg))


@cache
def find(name: str) -> PolicyRule:
    """The rule `name`; RuleFault if there is none."""
    if name not in names():
        raise RuleFault(f"rule: {name!r} is no policy rule; known: {', '.join(names())}", "rule")
    found: PolicyRule = getattr(import_module(f"engines.rules.{name}"), name)
    return found


def checked(name: str, parameters: Mapping[str, Any], cast: Cast) -> Parameters:
    """A rule's parameters, each of the right type and every name one of the ensemble's."""
    for field, value in parameters.items():
        items = value if isinstance(value, list | tuple) else [value]
        if not all(isinstance(item, FLAT) for item in items):
            raise RuleFault(f"{field}: takes a plain value or a list of them", field)
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in parameters.items()}
    try:
        found = find(name).parameters.model_validate(plain)
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(map(str, first["loc"])) or "rule"
        raise RuleFault(f"{where}: {first['msg']}", where) from fault
    found.check(cast)
    return found
