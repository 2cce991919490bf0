"""From messages or a raw prompt to token ids, and to the conversation that monitors read.

It knows a model's tokenizer and template and nothing of decoding.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decoders.core.base import RequestError, Think
from engines.tokenizer import TemplateFault
from server.bodies import Message, Part, Tool
from server.served import Served

LONG = 20_000
"""Characters from which on tokenizing leaves the event loop."""

RESERVED = frozenset(
    {"self", "conversation", "messages", "template", "chat_template", "tools", "documents"}
    | {"tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict"}
    | {"add_generation_prompt", "continue_final_message", "return_assistant_tokens_mask"}
    | {"tokenizer_kwargs", "processor_kwargs", "load_audio_from_video", "kwargs"}
)
"""Names that the rendering itself uses: no variables of a template."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as token ids, with the conversation behind it.

    `text` is what was tokenized. `think_open` says that it ends inside the model's thinking.
    """

    tokens: tuple[int, ...]
    messages: tuple[Mapping[str, Any], ...]
    text: str | None = None
    think_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """How messages become a prompt."""

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool = False
    variables: Mapping[str, Any] | None = None

    @property
    def begins(self) -> bool:
        """Whether the assistant's turn is opened at the end."""
        if self.add_generation_prompt is None:
            return not self.continue_final_message
        return self.add_generation_prompt


async def of_messages(served: Served, wanted: Rendering) -> Prompt:
    """The prompt of a conversation by the model's chat template. Raises `RequestError`."""
    messages = [_message(one) for one in wanted.messages]
    text = _rendered(served, messages, wanted)
    tokens = await encode(served, text, wanted.add_special_tokens)
    if not tokens:
        raise RequestError("messages: the prompt is empty", "messages", "invalid_value")
    ends_open = wanted.begins and _open(served.think, text)
    return Prompt(tokens, tuple(messages), text, ends_open)


async def encode(served: Served, text: str, special: bool) -> tuple[int, ...]:
    """Token ids of a text, in a thread if it is long."""
    if len(text) < LONG:
        return tuple(served.tokenizer.encode(text, special=special))
    tokens = await asyncio.to_thread(served.tokenizer.encode, text, special=special)
    return tuple(tokens)


async def of_text(served: Served, text: str, special: bool, param: str = "prompt") -> Prompt:
    """A raw prompt."""
    tokens = await encode(served, text, special)
    if not tokens:
        raise RequestError(f"{param}: the prompt is empty", param, "invalid_value")
    return Prompt(tokens, ({"role": "user", "content": text},), text)


def of_tokens(served: Served, tokens: Sequence[int], param: str = "prompt") -> Prompt:
    """A raw prompt given as token ids."""
    if not tokens:
        raise RequestError(f"{param}: the prompt is empty", param, "invalid_value")
    check_ids(served, tokens, param)
    text = served.tokenizer.decode(tokens)
    return Prompt(tuple(tokens), ({"role": "user", "content": text},))


def check_ids(served: Served, tokens: Sequence[int], param: str) -> None:
    """Raises `RequestError` for ids that the model does not have."""
    size = len(served.tokenizer)
    if tokens and (max(tokens) >= size or min(tokens) < 0):
        message = f"{param}: a token id is outside the vocabulary of {size}"
        raise RequestError(message, param, "invalid_value")


def flat(content: str | Sequence[Part] | None) -> str:
    """A message's text."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text or part.refusal or "" for part in content)


def _message(message: Message) -> dict[str, Any]:
    """The message as templates know it."""
    made: dict[str, Any] = {"role": message.role, "content": flat(message.content)}
    for name in ("name", "tool_call_id"):
        if (value := getattr(message, name)) is not None:
            made[name] = value
    thought = message.reasoning_content or message.reasoning
    if thought:
        made |= {"reasoning_content": thought, "reasoning": thought}
    if message.tool_calls:
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": _arguments(call.function.arguments),
                },
            }
            for call in message.tool_calls
        ]
    return made


def _arguments(text: str) -> Any:
    """Templates want the arguments as an object; what is none goes in as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _rendered(served: Served, messages: list[dict[str, Any]], wanted: Rendering) -> str:
    if wanted.add_generation_prompt and wanted.continue_final_message:
        message = "add_generation_prompt and continue_final_message exclude each other"
        raise RequestError(message, "continue_final_message", "invalid_value")
    variables = _variables(wanted.variables)
    try:
        return served.tokenizer.render(
            _spoken(served, messages),
            template=served.template,
            tools=[tool.model_dump(exclude_none=True) for tool in wanted.tools] or None,
            add_generation_prompt=wanted.begins,
            continue_final_message=bool(wanted.continue_final_message),
            **variables,
        )
    except TemplateFault:
        raise
    except Exception as fault:  # whatever a template raises, it is the messages that it cannot take
        raise TemplateFault(f"the chat template failed: {fault}") from fault


def _variables(given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    for name in given or {}:
        if name in RESERVED:
            path = f"chat_template_kwargs.{name}"
            raise RequestError(f"{path}: no variable of a template", path, "invalid_value")
    return given or {}


def _spoken(served: Served, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages, `developer` called `system` where the template has no such role."""
    template = served.template or getattr(served.tokenizer.hf, "chat_template", None)
    if not isinstance(template, str) or "developer" in template:
        return messages
    return [{**one, "role": "system"} if one["role"] == "developer" else one for one in messages]


def _open(think: Think | None, text: str) -> bool:
    return think is not None and text.rstrip().endswith(think.open)
