"""Log-probabilities in the forms of the chat and the text completions API.

A forced token has none: its entry says null. It knows a tokenizer and no engine.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from engines.base import TokenLogprob
from engines.tokenizer import Tokenizer

Entry = tuple[int, TokenLogprob | None]

LOWEST = -9999.0
"""What the API says for a probability of zero, since JSON has no infinity."""


@cache
def _byte_letters() -> dict[str, int]:
    """The letters by which byte-level vocabularies spell bytes: printable ones stand for
    themselves, the others for the code points from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


class Names:
    """Names tokens as clients see them."""

    def __init__(self, tokenizer: Tokenizer, as_ids: bool = False) -> None:
        """`as_ids` names them `token_id:N`."""
        self._tokenizer = tokenizer
        self._as_ids = as_ids

    def text(self, token: int) -> str:
        """The token's own text or its number."""
        return f"token_id:{token}" if self._as_ids else self._tokenizer.piece(token)

    def bytes(self, token: int) -> list[int]:
        """The token's UTF-8 bytes, also where it is only a part of a character."""
        text = self._tokenizer.piece(token)
        if "�" not in text:
            return list(text.encode("utf-8", "replace"))
        return self._spelled(str(self._tokenizer.hf.convert_ids_to_tokens(token)), text)

    def _spelled(self, vocabulary: str, text: str) -> list[int]:
        if len(vocabulary) == 6 and vocabulary.startswith("<0x"):
            return [int(vocabulary[3:5], 16)]
        letters = _byte_letters()
        if all(letter in letters for letter in vocabulary):
            return [letters[letter] for letter in vocabulary]
        return list(text.encode("utf-8", "replace"))


def _shown(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else LOWEST


def chat_entries(names: Names, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The `content` list of a chat choice's log-probabilities."""
    return [_chat_entry(names, token, found) for token, found in entries]


def _chat_entry(names: Names, token: int, found: TokenLogprob | None) -> dict[str, Any]:
    top = found.top if found is not None else ()
    return {
        "token": names.text(token),
        "logprob": None if found is None else _shown(found.logprob),
        "bytes": names.bytes(token),
        "top_logprobs": [
            {"token": names.text(one), "logprob": _shown(value), "bytes": names.bytes(one)}
            for one, value in top
        ],
    }


class TextEntries:
    """Log-probabilities of one text choice, whose offsets go on from piece to piece."""

    def __init__(self, names: Names, top: int) -> None:
        self._names = names
        self._top = top
        self._offset = 0

    def add(self, entries: Sequence[Entry]) -> dict[str, list[Any]]:
        """The four lists of the API for these tokens."""
        made: dict[str, list[Any]] = {
            "text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": [],
        }  # fmt: skip
        for token, found in entries:
            text = self._names.text(token)
            made["text_offset"].append(self._offset)
            made["tokens"].append(text)
            made["token_logprobs"].append(None if found is None else _shown(found.logprob))
            made["top_logprobs"].append(self._likely(token, found))
            self._offset += len(text)
        return made

    def _likely(self, token: int, found: TokenLogprob | None) -> dict[str, float] | None:
        """The best alternatives and the token itself; of two with one text the likelier counts."""
        if found is None:
            return None
        best: dict[str, float] = {}
        for one, value in (*found.top[: self._top], (token, found.logprob)):
            text = self._names.text(one)
            best[text] = max(_shown(value), best.get(text, LOWEST))
        return best


def prompt_entries(
    names: Names, prompt: Sequence[int], entries: Sequence[TokenLogprob | None], top: int
) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: for each token those of the `top` likeliest and itself, by id."""
    return [
        None if found is None else _by_id(names, token, found, top)
        for token, found in zip(prompt, entries, strict=True)
    ]


def _by_id(names: Names, token: int, found: TokenLogprob, top: int) -> dict[str, Any]:
    ranked = {one: (value, rank) for rank, (one, value) in enumerate(found.top[:top], 1)}
    ranked.setdefault(token, (found.logprob, 0))
    return {
        str(one): {
            "logprob": _shown(value),
            "rank": rank or None,
            "decoded_token": names.text(one),
        }
        for one, (value, rank) in ranked.items()
    }
