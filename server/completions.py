"""POST /v1/completions: raw prompts in, their continuations out."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from decoders.core.answer import answer
from decoders.core.base import DecodeRequest, Field, Peer, RequestError
from decoders.core.ledger import Ledger, shares
from engines.base import Structured
from server import structured
from server.answering import Answering, Plan, Source
from server.answers import TextAnswer
from server.bodies import TextBody
from server.dry import dry_run
from server.fields import Endpoint
from server.intake import Chosen, choose, most_tokens, peers_of, request_for, settings_of, terms
from server.logprobs import Names
from server.objects import TextCompletion
from server.openapi import decodes
from server.parsing import read
from server.prompting import Likelihoods, behind, check_prompt_logprobs, cost, echoed, likelihoods
from server.prompts import Prompt, of_text, of_tokens
from server.service import Service, key_of, record_of, service_of
from server.shares import TextShape
from server.stream import Head, TextEvents
from server.waking import awake

router = APIRouter()


@router.post("/v1/completions", **decodes("completions", TextBody, TextCompletion))
async def completions(request: Request) -> Response:
    """Continues one prompt or, with `plain`, several."""
    service, record = service_of(request), record_of(request)
    body = await read(request, TextBody, Endpoint.TEXT)
    record.stream = bool(body.stream)
    chosen = choose(service, key_of(request), body, record.arrival)
    record.model, record.strategy = chosen.served.base, chosen.strategy.name
    make = partial(_response, request, chosen, body)
    return await awake(service, chosen, body, record, make)


async def _response(request: Request, chosen: Chosen, body: TextBody) -> Response:
    """The answer, its engine being up."""
    service = service_of(request)
    check_prompt_logprobs(chosen, body)
    prompts = await _prompts(chosen, body)
    grammar = await asyncio.to_thread(structured.grammar, body)
    peers = [await _peers(chosen, body, one) for one in prompts]
    made = _requests(service, chosen, body, list(zip(prompts, peers, strict=True)), grammar)
    request.scope["prompt"] = "\n".join(str(one.messages[0]["content"]) for one in prompts)
    if settings_of(body).dry_run:
        return dry_run(service, chosen, made, cost(body, made))
    plan = _plan(chosen, body, made, prompts, grammar and grammar[0])
    return Answering(service, plan, record_of(request))


async def _prompts(chosen: Chosen, body: TextBody) -> list[Prompt]:
    """The prompts in order: a text, its token ids, or several of either."""
    served, special = chosen.served, body.add_special_tokens is not False
    given = body.prompt
    if isinstance(given, str):
        return [await of_text(served, given, special)]
    if not given:
        raise RequestError("prompt: there is none", "prompt", "invalid_value")
    if isinstance(given[0], int):
        return [of_tokens(served, given)]
    if len(given) > 1 and Field.ECHO not in chosen.strategy.honours:
        message = f"the strategy {chosen.strategy.name!r} takes one prompt"
        raise RequestError(message, "prompt", "unsupported")
    return [await _one(chosen, one, special, f"prompt.{i}") for i, one in enumerate(given)]


async def _one(chosen: Chosen, given: Any, special: bool, param: str) -> Prompt:
    if isinstance(given, str):
        return await of_text(chosen.served, given, special, param)
    return of_tokens(chosen.served, given, param)


async def _peers(chosen: Chosen, body: TextBody, prompt: Prompt) -> dict[str, Peer]:
    """The other models with the same text before them."""
    text = prompt.text
    if text is None:
        text = chosen.served.tokenizer.decode(prompt.tokens)
    special = body.add_special_tokens is not False
    return await peers_of(chosen, partial(of_text, text=text, special=special))


def _requests(
    service: Service,
    chosen: Chosen,
    body: TextBody,
    prompts: Sequence[tuple[Prompt, Mapping[str, Peer]]],
    grammar: tuple[str, Structured] | None,
) -> list[DecodeRequest]:
    agreed = terms(service, chosen, body, grammar)
    return [
        request_for(
            service,
            chosen,
            body,
            agreed,
            prompt,
            most_tokens(chosen, prompt, body, "prompt"),
            peers,
        )
        for prompt, peers in prompts
    ]


def _plan(
    chosen: Chosen,
    body: TextBody,
    made: Sequence[DecodeRequest],
    prompts: Sequence[Prompt],
    grammar: str | None,
) -> Plan:
    parts = shares(made)
    ledgers = list(chain.from_iterable(parts))
    found = [likelihoods(body, one, part[0]) for one, part in zip(made, parts, strict=True)]
    of_each = [
        _sources(chosen, body, *one) for one in zip(made, prompts, parts, found, strict=True)
    ]
    head = Head.fresh("cmpl", body.model)
    shapes = [TextShape(_names(chosen, body), body.logprobs or 0) for _ in ledgers]
    include, running = body.reporting(sum(len(one.prompt) for one in made))
    return Plan(
        key=chosen.key,
        requests=made,
        sources=list(chain.from_iterable(of_each)),
        ledgers=ledgers,
        estimate=cost(body, made),
        events=TextEvents(head, shapes, include, running) if body.stream else None,
        answer=None if body.stream else TextAnswer(head, shapes),
        include_usage=include,
        grammar=grammar,
        complete=partial(_complete, chosen, body, found)
        if body.prompt_logprobs is not None
        else None,
    )


def _sources(
    chosen: Chosen,
    body: TextBody,
    made: DecodeRequest,
    prompt: Prompt,
    ledgers: Sequence[Ledger],
    found: Likelihoods | None,
) -> list[Source]:
    """One source per choice of one prompt."""
    if not body.echo:
        plain = [partial(answer, made, i, ledger) for i, ledger in enumerate(ledgers)]
        return [behind(found, one) for one in plain]
    text = prompt.text
    if text is None:
        text = chosen.served.tokenizer.decode(prompt.tokens, skip_special=made.skip_special)
    return [
        behind(found, partial(echoed, made, i, ledger, text, found))
        for i, ledger in enumerate(ledgers)
    ]


def _names(chosen: Chosen, body: TextBody) -> Names:
    return Names(chosen.served.tokenizer, bool(body.return_tokens_as_token_ids))


def _complete(
    chosen: Chosen, body: TextBody, found: Sequence[Likelihoods | None], whole: Any
) -> None:
    """Adds each prompt's log-probabilities to its choices."""
    names, n = _names(chosen, body), body.n or 1
    for choice in whole["choices"]:
        of_prompt = found[choice["index"] // n]
        if of_prompt is not None:
            choice["prompt_logprobs"] = of_prompt.shown(names, body.prompt_logprobs or 0)
