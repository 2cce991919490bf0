"""A model as one request sees it: its engine, its template, its markers, its strategies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from decoders.core.base import Think
from engines.base import Engine
from engines.tokenizer import Tokenizer
from server.choice import Choice, merge


@dataclass(frozen=True)
class Served:
    """`id` as it was asked for, `base` the configured id, `chosen` what the id says.

    `template` is the text of the configured chat template, None for the tokenizer's own. The
    tokenizer and what follows from it may be asked for once the engine has started.
    """

    id: str
    base: str
    engine: Engine
    chosen: Choice
    default: Choice
    markers: tuple[str, str] | None = None
    template: str | None = None
    presets: Mapping[str, Choice] = field(default_factory=dict)
    tool_parser: str | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """The engine's."""
        return self.engine.tokenizer

    @property
    def max_context(self) -> int:
        """Tokens of prompt and answer together."""
        return self.engine.max_context

    @cached_property
    def think(self) -> Think | None:
        """The think markers with their token ids; None if the model has none."""
        if self.markers is None:
            return None
        ids = [tuple(self.tokenizer.encode(text, special=False)) for text in self.markers]
        return Think(*self.markers, *ids)

    def choose(self, decoding: str | Mapping[str, Any] | None = None) -> Choice:
        """The strategy and its parameters for the body's `decoding` field."""
        return merge(self.chosen, self.default, decoding)
