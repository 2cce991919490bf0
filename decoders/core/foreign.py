"""Blocks of other models, whose tokens are their own: all that passes between models is text.

What such a model says is read as tokens of the request's own model, so that whoever chooses, scores
or sends it sees one kind of token. A block that its model did not end is cut where a word begins:
there every tokenizer can go on. It knows no utility and no strategy.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decoders.core.base import Peer, RequestError
from decoders.core.run import Run
from engines.base import Finish

OPEN_WORD = re.compile(r"\s+\S*$")
HALF = "\N{REPLACEMENT CHARACTER}"
OWN: Mapping[str, Any] = {
    "stop_token_ids": (), "logit_bias": {}, "banned": (), "logprobs": None, "structured": None,
    "min_tokens": 0,
}  # fmt: skip
"""What a sampling says in another model's tokens, taken back."""


@dataclass(frozen=True, slots=True)
class Said:
    """`tokens` are the request's own model's, `sampled` counts those of the model that spoke.

    `full`: its context holds the answer so far and no more.
    """

    tokens: tuple[int, ...]
    sampled: int
    finish: Finish | None = None
    full: bool = False


def peer(run: Run, name: str | None) -> Peer:
    """The other model `name`. Raises `RequestError` if the request brought none of that name."""
    found = run.request.peers.get(name or "")
    if found is None:
        where = "decoding.params.models"
        raise RequestError(f"{where}: {name!r} is not at hand here", where)
    return found


async def spoken(
    run: Run, other: Peer, done: Sequence[int], limit: int,
    purpose: tuple[int | str, ...], *, words: bool,
) -> Said:  # fmt: skip
    """What the other model says behind the answer so far, at most `limit` of its own tokens.

    With `words` it ends where a word does, as long as that leaves anything of it.
    """
    own, foreign = run.request.engine.tokenizer, other.engine.tokenizer
    after = foreign.encode(own.decode(done, skip_special=False), special=False) if done else []
    tokens: list[int] = []
    finish = None
    async for delta in run.generate(after, limit=limit, purpose=purpose, peer=other, **OWN):
        tokens += delta.tokens
        finish = delta.finish
    ended = finish is Finish.STOP
    shown = foreign.decode([*after, *(tokens[:-1] if ended else tokens)], skip_special=False)
    text = shown[len(foreign.decode(after, skip_special=False)) :]
    if not ended:
        text = text.rstrip(HALF)
        text = closed(text) if words else text
    said = own.encode(text, special=False) if text else []
    if ended and own.eos_id is not None:
        said.append(own.eos_id)
    full = len(other.prompt) + len(after) >= other.engine.max_context
    return Said(tuple(said), len(tokens), Finish.STOP if ended else None, full)


def closed(text: str) -> str:
    """The text without the word at its end, which may go on; all of it if there is no other."""
    found = OPEN_WORD.search(text)
    return text[: found.start()] if found is not None and found.start() else text
