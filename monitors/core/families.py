"""Families of guard models, as files in `monitors/families`: what their prompts and verdicts are.

The chat template itself comes with each checkpoint's tokenizer. It knows no tokenizer and no model.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

HERE = Path(__file__).parent.parent / "families"
Slot = Literal["user", "assistant", "omit"]
ROLES: Mapping[str, Slot] = {
    "user": "user",
    "tool": "user",
    "function": "user",
    "assistant": "assistant",
    "system": "omit",
    "developer": "omit",
}


class Family(BaseModel):
    """One family. `content` are the forms its templates take, tried in order.

    `before` is what the model writes ahead of the verdict; of each verdict's spellings the first is
    the usual one. `turns: last` means that its template reads one question and one answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    models: tuple[str, ...]
    content: tuple[Literal["text", "parts"], ...] = ("text",)
    turns: Literal["all", "last"] = "all"
    roles: Mapping[str, Slot] = Field(default=ROLES)
    before: str = ""
    safe: tuple[str, ...] = Field(min_length=1)
    unsafe: tuple[str, ...] = Field(min_length=1)
    unsure: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = Field(default_factory=dict)
    required: tuple[str, ...] = ()
    template: str = ""


def names() -> list[str]:
    """The families there are, sorted."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


@cache
def family(name: str) -> Family:
    """The family `name`. Raises ValueError if there is none."""
    if name not in names():
        raise ValueError(f"there is no family {name!r}; there are {', '.join(names())}")
    return Family.model_validate(yaml.safe_load((HERE / f"{name}.yaml").read_text("utf-8")))
