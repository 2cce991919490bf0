"""POST /v1/chat/completions: a conversation in, its answer out.

The endpoint reads as the steps of a request, in order; each is done elsewhere.
"""

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from decoders.core.answer import answer
from decoders.core.base import DecodeRequest, RequestError
from decoders.core.ledger import Ledger
from engines.base import Structured
from server import calls, structured
from server.answering import Answering, Plan
from server.answers import ChatAnswer
from server.bodies import ChatBody
from server.dry import dry_run
from server.fields import Endpoint
from server.intake import Chosen, choose, most_tokens, peers_of, request_for, settings_of, terms
from server.logprobs import Names
from server.objects import ChatCompletion
from server.openapi import decodes
from server.parsing import read
from server.prompting import Likelihoods, behind, check_prompt_logprobs, cost, likelihoods
from server.prompts import Rendering, of_messages
from server.service import key_of, record_of, service_of
from server.shares import ChatShape
from server.stream import ChatEvents, Head
from server.waking import awake

router = APIRouter()


@router.post("/v1/chat/completions", **decodes("chat", ChatBody, ChatCompletion))
async def chat_completions(request: Request) -> Response:
    """Answers a conversation."""
    service, record = service_of(request), record_of(request)
    body = await read(request, ChatBody, Endpoint.CHAT)
    record.stream = bool(body.stream)
    chosen = choose(service, key_of(request), body, record.arrival)
    record.model, record.strategy = chosen.served.base, chosen.strategy.name
    make = partial(_response, request, chosen, body)
    return await awake(service, chosen, body, record, make)


async def _response(request: Request, chosen: Chosen, body: ChatBody) -> Response:
    """The answer, its engine being up."""
    service = service_of(request)
    check_prompt_logprobs(chosen, body)
    grammar = await asyncio.to_thread(_grammar, body)
    agreed = terms(service, chosen, body, grammar)
    prompt = await of_messages(chosen.served, _rendering(body))
    most = most_tokens(chosen, prompt, body, "messages")
    peers = await peers_of(chosen, partial(of_messages, wanted=_rendering(body)))
    made = request_for(service, chosen, body, agreed, prompt, most, peers)
    request.scope["prompt"] = prompt.text
    if settings_of(body).dry_run:
        return dry_run(service, chosen, [made], cost(body, [made]))
    plan = _plan(chosen, body, made, grammar and grammar[0])
    return Answering(service, plan, record_of(request))


def _grammar(body: ChatBody) -> tuple[str, Structured] | None:
    """What the content is held to: a form that was asked for or a call that is required."""
    form, call = structured.grammar(body), calls.grammar(body)
    if call is not None:
        structured.check_schema(call[1].value, "tools")
    if form is not None and call is not None:
        message = f"{form[0]} and tool_choice exclude each other"
        raise RequestError(message, "tool_choice", "invalid_value")
    return form or call


def _rendering(body: ChatBody) -> Rendering:
    variables = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        variables.setdefault("reasoning_effort", body.reasoning_effort)
    return Rendering(
        messages=body.messages,
        tools=() if body.tool_choice == "none" else body.tools or (),
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        add_special_tokens=bool(body.add_special_tokens),
        variables=variables,
    )


def _plan(chosen: Chosen, body: ChatBody, made: DecodeRequest, grammar: str | None) -> Plan:
    ledgers = Ledger.for_choices(made.budget, made.n, made.arrival)
    found = likelihoods(body, made, ledgers[0])
    head = Head.fresh("chatcmpl", body.model)
    shapes = [_shape(chosen, body) for _ in ledgers]
    include, running = body.reporting(len(made.prompt))
    return Plan(
        key=chosen.key,
        requests=[made],
        sources=[
            behind(found, partial(answer, made, i, ledger)) for i, ledger in enumerate(ledgers)
        ],
        ledgers=ledgers,
        estimate=cost(body, [made]),
        events=ChatEvents(head, shapes, include, running) if body.stream else None,
        answer=None if body.stream else ChatAnswer(head, shapes),
        include_usage=include,
        grammar=grammar,
        complete=None if found is None else partial(_complete, chosen, body, found),
    )


def _names(chosen: Chosen, body: ChatBody) -> Names:
    return Names(chosen.served.tokenizer, bool(body.return_tokens_as_token_ids))


def _shape(chosen: Chosen, body: ChatBody) -> ChatShape:
    form = body.reasoning_format or ("hidden" if body.include_reasoning is False else "both")
    return ChatShape(form, chosen.served.think, _names(chosen, body), _reader(chosen, body))


def _reader(chosen: Chosen, body: ChatBody) -> calls.Reader | None:
    return calls.reader(body, chosen.served.engine, chosen.served.tool_parser)


def _complete(chosen: Chosen, body: ChatBody, found: Likelihoods, whole: Any) -> None:
    """Adds the prompt's log-probabilities."""
    whole["prompt_logprobs"] = found.shown(_names(chosen, body), body.prompt_logprobs or 0)
