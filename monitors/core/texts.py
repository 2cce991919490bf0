"""What a monitor that reads plain text is given: messages and steps as text.

It knows no template; a monitor with a model of its own has that model's.
"""

from collections.abc import Sequence

from monitors.core.base import Message


def said(message: Message) -> str:
    """A message's text: its content, or the text parts of it."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content)


def traced(conversation: Sequence[Message], steps: Sequence[str]) -> str:
    """The steps as one text; without any the last message, which is then what is judged."""
    if steps:
        return "".join(steps)
    return said(conversation[-1]) if conversation else ""


def everything(conversation: Sequence[Message], steps: Sequence[str]) -> str:
    """Every message and the steps, a blank line between them."""
    return "\n\n".join([*map(said, conversation), *(["".join(steps)] if steps else [])])
