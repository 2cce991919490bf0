"""Requests over a table engine, and the whole answer they give; no HTTP."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from decoders.core.answer import answer
from decoders.core.base import DecodeRequest, Piece, Summary, Think, Usage
from decoders.core.ledger import Ledger, total
from decoders.core.registry import find, names
from decoders.core.run import checked
from engines.base import Capability, Delta, Engine, Sampling, TokenLogprob
from engines.table import TableEngine, build
from engines.tokenizer import Tokenizer
from monitors.verifier import Regex, from_spec

THINKER = "<think>\nlet me see 3+4=7\n</think>\n\nThe answer is 7."


AUTOREGRESSIVE = [name for name in names() if Capability.DIFFUSION not in find(name).requires]
"""The strategies of models that write from left to right."""
SINGLE = [name for name in AUTOREGRESSIVE if Capability.RULES not in find(name).requires]
"""Those of them that one model alone can do, as on a table engine."""
DIFFUSION = [name for name in names() if name not in AUTOREGRESSIVE]
"""Those that need a canvas."""


def table(**spec: Any) -> TableEngine:
    """A table engine that thinks and answers 7 when greeted, and babbles otherwise."""
    return build("table", {"kind": "table", "script": {"hello": THINKER}, **spec})


def think(tokenizer: Tokenizer) -> Think:
    """The usual markers."""
    ids = [tuple(tokenizer.encode(mark, special=False)) for mark in ("<think>", "</think>")]
    return Think("<think>", "</think>", ids[0], ids[1])


def request(
    engine: Engine, strategy: str = "plain", params: dict[str, Any] | None = None, **fields: Any
) -> DecodeRequest:
    """A request for `strategy`; a verifier that looks for a 7 is the one monitor."""
    wanted = Regex(kind="regex", pattern="7")
    fields.setdefault("monitors", {"seven": from_spec(wanted)})
    fields.setdefault("think", think(engine.tokenizer))
    fields.setdefault("sampling", Sampling(temperature=1.0))
    fields.setdefault("max_tokens", 60)
    fields.setdefault("seed", 5)
    prompt = fields.pop("prompt", "hello")
    return DecodeRequest(
        engine=engine,
        prompt=tuple(engine.tokenizer.encode(prompt, special=False)),
        strategy=strategy,
        options=checked(find(strategy).options, params or {}, "decoding.params"),
        **fields,
    )


@dataclass
class Whole:
    """A finished answer."""

    reasoning: str = ""
    content: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[tuple[int, TokenLogprob | None]] = field(default_factory=list)
    finish: str = ""
    last: Piece = field(default_factory=Piece)
    usage: Usage = field(default_factory=Usage)

    @property
    def summary(self) -> Summary:
        """What the choice's `decoding` object says."""
        assert self.last.summary is not None
        return self.last.summary

    def add(self, piece: Piece) -> None:
        """Folds a piece in."""
        self.reasoning += piece.reasoning
        self.content += piece.content
        self.logprobs += piece.logprobs or []
        if piece.event is not None:
            self.events.append(dict(piece.event))
        if piece.finish is not None:
            self.finish, self.last = piece.finish, piece


async def whole(asked: DecodeRequest, choice: int = 0) -> Whole:
    """Runs one choice to its end."""
    result = Whole()
    now = asyncio.get_running_loop().time()
    ledger = Ledger.for_choices(asked.budget, asked.n, now)[choice]
    async with aclosing(answer(asked, choice, ledger)) as pieces:
        async for piece in pieces:
            result.add(piece)
    result.usage = total([ledger])
    return result


class Jittered(TableEngine):
    """A table engine whose deltas come after seeded random pauses, so that paths race."""

    jitter = 0

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        """As the table engine, but never in step."""
        state = hash((self.jitter, sampling.seed)) & 0xFFFF
        async with aclosing(super().generate(prefix, sampling, limit)) as deltas:
            async for delta in deltas:
                state = (state * 75 + 74) % 65537
                for _ in range(state % 5):
                    await asyncio.sleep(0)
                yield delta
