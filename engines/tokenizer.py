"""Text to token ids and back, and chat templates, as Hugging Face tokenizers do them.

Loads local directories only (or hub ids through transformers' own cache); runs no remote code. It
does not know models, sampling or requests.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jinja2 import TemplateError

from engines.auto import transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Message = Mapping[str, Any]
PENDING = 32
"""Tokens without text after which they are taken as no character's bytes; the longest has four."""


class TemplateFault(ValueError):
    """The chat template refused the messages; the text says why."""


class Detokenizer(Protocol):
    """Turns a growing token stream into text, a piece at a time."""

    def step(self, token: int) -> str:
        """The text that `token` completes; "" while bytes of a character are missing."""


class Tokenizer:
    """A Hugging Face fast tokenizer, as the server needs it."""

    def __init__(self, backend: "PreTrainedTokenizerFast") -> None:
        """Wraps a loaded tokenizer."""
        self.hf = backend
        self._rust = backend.backend_tokenizer
        self.special_ids = frozenset(backend.all_special_ids)
        self.piece = lru_cache(maxsize=65536)(self._piece)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Loads the tokenizer of a checkpoint directory or hub id."""
        found = transformers().AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
        return cls(found)

    @property
    def eos_id(self) -> int | None:
        """The end-of-sequence token, if there is one."""
        eos: int | None = self.hf.eos_token_id
        return eos

    def __len__(self) -> int:
        return len(self.hf)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of `text`; `special` adds what the model wants before a raw prompt."""
        return list(self._rust.encode(text, add_special_tokens=special).ids)

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of `tokens`."""
        return str(self._rust.decode(list(tokens), skip_special_tokens=skip_special))

    def _piece(self, token: int) -> str:
        """One token's own text, special tokens shown."""
        return str(self._rust.decode([token], skip_special_tokens=False))

    def stream(self, *, skip_special: bool = True) -> Detokenizer:
        """A fresh incremental detokenizer."""
        return _Stream(self._rust, skip_special)

    def render(
        self,
        messages: Sequence[Message],
        *,
        template: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **kwargs: Any,
    ) -> str:
        """The prompt text of a conversation by the chat template; raises `TemplateFault`."""
        try:
            text = self.hf.apply_chat_template(
                [dict(m) for m in messages],
                chat_template=template,
                tools=[dict(t) for t in tools] if tools else None,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **kwargs,
            )
        except (TemplateError, ValueError, TypeError, KeyError) as fault:
            raise TemplateFault(str(fault)) from fault
        return str(text)


class _Stream:
    """tokenizers' own incremental decoder behind the `Detokenizer` protocol.

    It reads all pending tokens again at every step, so bytes that never make a character would
    cost their number squared; after `PENDING` tokens without text they are given out as they are.
    """

    def __init__(self, rust: Any, skip_special: bool) -> None:
        self._rust = rust
        self._skip = skip_special
        self._stream = _decoder(skip_special)
        self._pending: list[int] = []

    def step(self, token: int) -> str:
        text: str = self._stream.step(self._rust, token) or ""
        if text:
            self._pending.clear()
            return text
        self._pending.append(token)
        return self._give_up() if len(self._pending) >= PENDING else ""

    def _give_up(self) -> str:
        """The pending tokens as a decoder gives them after some text; begins anew after it.

        After text, since a decoder may drop the blank before its very first word.
        """
        anchor = list(self._rust.encode("a", add_special_tokens=False).ids)
        before = self._decoded(anchor)
        text = self._decoded([*anchor, *self._pending])[len(before) :]
        self._pending.clear()
        self._stream = _decoder(self._skip)
        for token in anchor:
            self._stream.step(self._rust, token)
        return text

    def _decoded(self, tokens: list[int]) -> str:
        return str(self._rust.decode(tokens, skip_special_tokens=self._skip))


def _decoder(skip_special: bool) -> Any:
    from tokenizers.decoders import DecodeStream

    return DecodeStream(skip_special_tokens=skip_special)
