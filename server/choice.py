"""Which strategy a request gets, with which parameters: three sources, merged field by field."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Choice:
    """A strategy by name with parameters that are not validated yet.

    `preset` is the preset that the virtual id named and that was used; `named` says that the
    body named the strategy, `altered` that it changed a preset's parameters.
    """

    strategy: str
    params: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    named: bool = False
    altered: bool = False


def merge(base: Choice, default: Choice, decoding: str | Mapping[str, Any] | None) -> Choice:
    """What holds: `decoding` (the body's field) over `base` (what the model id says).

    `default` is the model's own; its parameters stand under the body's where the strategy is the
    same. A strategy that the body names beats `base`, whose parameters then do not count unless
    the strategy is the same.
    """
    body: Mapping[str, Any] = (
        {"strategy": decoding} if isinstance(decoding, str) else decoding or {}
    )
    name, params = body.get("strategy"), body.get("params") or {}
    if name is None or name == base.strategy:
        merged = {**base.params, **params}
        altered = base.preset is not None and bool(params)
        return Choice(base.strategy, merged, base.preset, name is not None, altered)
    under = default.params if name == default.strategy else {}
    return Choice(name, {**under, **params}, None, True)
