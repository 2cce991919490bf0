"""Blocks of other models, whose tokens are their own: all that passes between models is text.

What such a model says is read as tokens of the request's own model, so that whoever chooses, scores
or sends it sees one kind of token. A block that its model did not end is cut where a word begins:
there every tokenizer can go on. It knows no utility and no strategy.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from decoders.core.base import Commit, Peer, RequestError
from decoders.core.run import Run
from decoders.core.stops import Stops
from engines.base import Finish

OPEN_WORD = re.compile(r"\s+\S*$")
HALF = "\N{REPLACEMENT CHARACTER}"
MORE = 4
"""Tokens after which part of a character is taken as none: the longest has four bytes."""
OWN: Mapping[str, Any] = {
    "stop_token_ids": (), "logit_bias": {}, "banned": (), "logprobs": None, "structured": None,
    "min_tokens": 0,
}  # fmt: skip
"""What a sampling says in another model's tokens, taken back."""


@dataclass(frozen=True, slots=True)
class Said:
    """`tokens` are the request's own model's, `sampled` counts those of the model that spoke.

    `full`: its context holds the answer so far and no more. `broken`: no whole character came.
    """

    tokens: tuple[int, ...]
    sampled: int = 0
    finish: Finish | None = None
    full: bool = False
    broken: bool = False


def peer(run: Run, name: str | None) -> Peer:
    """The other model `name`. Raises `RequestError` if the request brought none of that name."""
    found = run.request.peers.get(name or "")
    if found is None:
        where = "decoding.params.models"
        raise RequestError(f"{where}: {name!r} is not at hand here", where)
    return found


async def spoken(
    run: Run, other: Peer, done: Sequence[int], limit: int,
    purpose: tuple[int | str, ...], *, block: bool,
) -> Said:  # fmt: skip
    """What the other model says behind the answer so far, at most `limit` of its own tokens.

    A `block` ends where a word does, as long as that leaves anything of it; one that would be only
    part of a character goes on, at most `MORE` tokens. A stop string ends all of it.
    """
    if Stops(run.request, done).found:
        return Said(())
    heard = Heard(run, other, done)
    await heard.listen(limit, purpose)
    for turn in range(MORE if block else 0):
        if not heard.partial or len(heard.tokens) < limit + turn:
            break
        await heard.listen(1, (*purpose, turn))
    broken = block and heard.partial and len(heard.tokens) == limit + MORE
    finish = Finish.STOP if heard.ended else None
    return Said(tuple(heard.own(block)), len(heard.tokens), finish, heard.full, broken)


class Heard:
    """What another model says behind the tokens `done`, as it comes."""

    def __init__(self, run: Run, other: Peer, done: Sequence[int]) -> None:
        self._run, self._other, self._done = run, other, done
        self._own, self._foreign = run.request.engine.tokenizer, other.engine.tokenizer
        spelled = self._own.decode(done, skip_special=False)
        self._after = self._foreign.encode(spelled, special=False) if done else []
        self._before = self._foreign.decode(self._after, skip_special=False)
        self._cut: list[int] | None = None
        self.tokens: list[int] = []
        self.text = ""
        self.ended = False

    @property
    def full(self) -> bool:
        """Whether the model's context has no room behind the answer so far."""
        return len(self._other.prompt) + len(self._after) >= self._other.engine.max_context

    @property
    def partial(self) -> bool:
        """Whether all that came is part of a character."""
        return bool(self.tokens) and not self.text and not self.ended

    async def listen(self, limit: int, purpose: tuple[int | str, ...]) -> None:
        """Takes up to `limit` tokens more; none behind a stop string."""
        source = self._run.generate(
            [*self._after, *self.tokens], limit=limit, purpose=purpose, peer=self._other, **OWN
        )
        async with aclosing(source) as deltas:
            async for delta in deltas:
                self.tokens += delta.tokens
                self.ended = delta.finish is Finish.STOP
                if self._run.request.stop and self._stopped():
                    return
        self.text = self._read()

    def _read(self) -> str:
        """The text of all tokens but the one that ends it, whole characters only."""
        tokens = self.tokens[:-1] if self.ended else self.tokens
        shown = self._foreign.decode([*self._after, *tokens], skip_special=False)
        text = shown[len(self._before) :]
        return text if self.ended else text.rstrip(HALF)

    def _stopped(self) -> bool:
        """Whether a stop string has come; what stands is kept, then."""
        self.text = self._read()
        asked = self._run.request.stop
        if not any(stop in self._before[-len(stop) :] + self.text for stop in asked):
            return False
        said, stops = self._spelled(self.text), Stops(self._run.request, self._done)
        taken = stops.standing(Commit(said))
        if stops.found:
            self._cut, self.ended = said[:taken], False
        return stops.found

    def own(self, block: bool) -> list[int]:
        """The same in tokens of the request's own model; of a `block` whole words."""
        if self._cut is not None:
            return self._cut
        said = self._spelled(closed(self.text) if block and not self.ended else self.text)
        if self.ended and self._own.eos_id is not None:
            said.append(self._own.eos_id)
        return said

    def _spelled(self, text: str) -> list[int]:
        return self._own.encode(text, special=False) if text else []


def closed(text: str) -> str:
    """The text without the word at its end, which may go on; all of it if there is no other."""
    found = OPEN_WORD.search(text)
    return text[: found.start()] if found is not None and found.start() else text
