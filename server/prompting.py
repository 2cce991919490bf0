"""What an answer says about its own prompt: its log-probabilities, and its echo.

It knows engines and pieces, no HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from decoders.core.answer import answer
from decoders.core.base import (
    DecodeRequest,
    Estimate,
    OutcomeKind,
    Piece,
    RequestError,
    Summary,
    TraceLevel,
)
from decoders.core.ledger import Ledger
from decoders.core.run import estimate
from engines.base import Capability, TokenLogprob
from server.answering import Source
from server.bodies import Sampled, TextBody
from server.intake import Chosen
from server.logprobs import Names, prompt_entries


def wanted(body: Sampled) -> int | None:
    """How many alternatives stand beside each token of a prompt; None: it is not read for them."""
    echoed = body.logprobs if isinstance(body, TextBody) and body.echo else None
    return max((top for top in (echoed, body.prompt_logprobs) if top is not None), default=None)


def cost(body: Sampled, made: Sequence[DecodeRequest]) -> Estimate:
    """What a call may cost at most, the reading of its prompts included."""
    answers, reads = estimate(*made), 0 if wanted(body) is None else len(made)
    return replace(answers, engine_requests=answers.engine_requests + reads)


def check_prompt_logprobs(chosen: Chosen, body: Sampled) -> None:
    """Raises `RequestError` where the prompt's log-probabilities cannot be had."""
    if body.prompt_logprobs is not None and body.stream:
        message = "prompt_logprobs is not available with stream: true"
        raise RequestError(message, "prompt_logprobs", "unsupported")
    able = Capability.PROMPT_LOGPROBS in chosen.served.engine.capabilities
    if wanted(body) is not None and not able:
        param = "prompt_logprobs" if body.prompt_logprobs is not None else "echo"
        message = f"the model {chosen.served.base!r} gives no log-probabilities of the prompt"
        raise RequestError(message, param, "unsupported")


@dataclass(slots=True)
class Likelihoods:
    """The log-probabilities of one prompt's tokens: its engine is asked once, for all choices.

    The first choice's ledger pays. `entries` are None before, and where the deadline came first.
    """

    request: DecodeRequest
    top: int
    ledger: Ledger
    entries: Sequence[TokenLogprob | None] | None = None
    _asked: bool = False
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def late(self) -> bool:
        """Whether the deadline came first."""
        return self._asked and self.entries is None

    async def read(self) -> None:
        """Fills `entries`, for whoever comes first."""
        async with self._one:
            if not self._asked:
                self.entries = await self._found()
                self._asked = True

    async def _found(self) -> Sequence[TokenLogprob | None] | None:
        self.ledger.usage.engine_requests += 1
        limit = asyncio.timeout_at(self.ledger.deadline)
        try:
            async with limit:
                return await self.request.engine.prompt_logprobs(self.request.prompt, self.top)
        except TimeoutError:
            if limit.expired():
                return None
            raise

    def shown(self, names: Names, top: int) -> list[dict[str, Any] | None] | None:
        """The `prompt_logprobs` of an answer."""
        if self.entries is None:
            return None
        return prompt_entries(names, self.request.prompt, self.entries, top)


def likelihoods(body: Sampled, made: DecodeRequest, ledger: Ledger) -> Likelihoods | None:
    """Those of a prompt; None where nothing asks for them."""
    top = wanted(body)
    return None if top is None else Likelihoods(made, top, ledger)


def behind(found: Likelihoods | None, source: Source) -> Source:
    """A choice that begins once its prompt has been read."""

    async def pieces() -> AsyncGenerator[Piece, None]:
        assert found is not None
        await found.read()
        async with aclosing(source()) as rest:
            async for piece in rest:
                yield piece

    return source if found is None else pieces


async def echoed(
    request: DecodeRequest, choice: int, ledger: Ledger, text: str, found: Likelihoods | None
) -> AsyncGenerator[Piece, None]:
    """The prompt as the first piece, then the answer (none if `max_tokens` is 0)."""
    logprobs = None
    if request.sampling.logprobs is not None and found is not None:
        entries = found.entries or [None] * len(request.prompt)
        logprobs = list(zip(request.prompt, entries, strict=True))
    yield Piece(content=text, logprobs=logprobs)
    if request.max_tokens > 0:
        async with aclosing(answer(request, choice, ledger)) as pieces:
            async for piece in pieces:
                yield piece
        return
    ledger.usage.prompt_tokens = len(request.prompt)
    trace = {"version": 1, "nodes": []} if request.trace is TraceLevel.FULL else None
    kind, reason = OutcomeKind.COMPLETE, None
    if found is not None and found.late:
        kind, reason = OutcomeKind.BUDGET_EXHAUSTED, "deadline_ms"
    summary = Summary(request.strategy, kind, reason, 0, 0, 0, {}, trace)
    yield Piece(finish="length", summary=summary)
