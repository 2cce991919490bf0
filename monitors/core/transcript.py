"""A conversation and a trace as the plain turns that a guard's chat template takes.

Guards know user and assistant, in turn and with text alone. It knows families of guards, but no
tokenizer and no template.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from monitors.core.base import Message, UnreadableError
from monitors.core.families import Family

THINK = re.compile(r"</?think>")


class Turn(NamedTuple):
    """One message."""

    role: str
    text: str


def turns(conversation: Sequence[Message], steps: Sequence[str], family: Family) -> list[Turn]:
    """What is judged, the last turn foremost. Raises UnreadableError for what has no text.

    Messages of one role in a row become one, and a user's empty message stands first if none does.
    """
    told = [*conversation]
    if steps:
        told.append({"role": "assistant", "content": "".join(steps)})
    found: list[Turn] = []
    for message in told:
        slot = family.roles.get(str(message.get("role")))
        if slot is None:
            raise UnreadableError(f"the guard has no place for the role {message.get('role')!r}")
        if slot == "omit":
            continue
        turn = Turn(slot, spoken(message))
        if found and found[-1].role == slot:
            turn = Turn(slot, f"{found.pop().text}\n\n{turn.text}")
        found.append(turn)
    if family.turns == "last":
        found = found[
            max((at for at, turn in enumerate(found) if turn.role == "user"), default=0) :
        ]
    if not found or found[0].role != "user":
        found.insert(0, Turn("user", ""))
    return found


def spoken(message: Message) -> str:
    """All of a message's text, tool calls as JSON; without think marks, where templates cut."""
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "".join(_part(part) for part in content)
    calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
    if calls:
        content += json.dumps(calls, ensure_ascii=False)
    return THINK.sub("", content) if message.get("role") == "assistant" else content


def _part(part: Mapping[str, Any]) -> str:
    if part.get("type") not in ("text", "input_text"):
        raise UnreadableError(f"the guard reads text only, not {part.get('type')!r}")
    return str(part.get("text", ""))
