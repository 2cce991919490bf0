"""What an answer says about its own prompt: its log-probabilities, and its echo.

It knows engines and pieces, no HTTP.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from decoders.core.answer import answer
from decoders.core.base import (
    DecodeRequest,
    OutcomeKind,
    Piece,
    RequestError,
    Summary,
    TraceLevel,
)
from decoders.core.ledger import Ledger
from engines.base import Capability
from server.bodies import Sampled, TextBody
from server.intake import Chosen
from server.logprobs import Names, prompt_entries


def check_prompt_logprobs(chosen: Chosen, body: Sampled) -> None:
    """Raises `RequestError` where the prompt's log-probabilities cannot be had."""
    echoed = isinstance(body, TextBody) and body.echo and body.logprobs is not None
    if body.prompt_logprobs is not None and body.stream:
        message = "prompt_logprobs is not available with stream: true"
        raise RequestError(message, "prompt_logprobs", "unsupported")
    able = Capability.PROMPT_LOGPROBS in chosen.served.engine.capabilities
    if (echoed or body.prompt_logprobs is not None) and not able:
        param = "prompt_logprobs" if body.prompt_logprobs is not None else "echo"
        message = f"the model {chosen.served.base!r} gives no log-probabilities of the prompt"
        raise RequestError(message, param, "unsupported")


async def of_prompt(request: DecodeRequest, top: int, names: Names) -> list[dict[str, Any] | None]:
    """The `prompt_logprobs` of a request."""
    found = await request.engine.prompt_logprobs(request.prompt, top)
    return prompt_entries(names, request.prompt, found)


async def echoed(
    request: DecodeRequest, choice: int, ledger: Ledger, text: str
) -> AsyncGenerator[Piece, None]:
    """The prompt as the first piece, then the answer (none if `max_tokens` is 0)."""
    top = request.sampling.logprobs
    entries = None
    if top is not None:
        found = await request.engine.prompt_logprobs(request.prompt, top)
        entries = list(zip(request.prompt, found, strict=True))
    yield Piece(content=text, logprobs=entries)
    if request.max_tokens > 0:
        async with aclosing(answer(request, choice, ledger)) as pieces:
            async for piece in pieces:
                yield piece
        return
    ledger.usage.prompt_tokens = len(request.prompt)
    trace = {"version": 1, "nodes": []} if request.trace is TraceLevel.FULL else None
    kind, reason = OutcomeKind.COMPLETE, None
    summary = Summary(request.strategy, kind, reason, 0, 0, 0, {}, trace)
    yield Piece(finish="length", summary=summary)
