"""From a checked body to decode requests: the model, the strategy, the sampling, the limits.

Everything that is the caller's fault ends here. It knows no HTTP and writes no answer.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from decoders.core.base import (
    Budget,
    Decoder,
    DecodeRequest,
    Field,
    Options,
    Peer,
    RequestError,
    TraceLevel,
)
from decoders.core.registry import find
from decoders.core.run import checked
from engines.base import Capability, Sampling, Structured
from server.auth import Key, bounded, permit, permit_model, salt_of
from server.bodies import ChatBody, Decoding, Sampled, TextBody
from server.prompts import Prompt, check_ids
from server.served import Served
from server.service import Service

GREEDY_SHARE = 1e-6
"""Stands for `top_p` 0: the most likely token always stays."""

CONTEXT = "context_length_exceeded"
PEERS = "decoding.params.models"

NEEDS = {
    Field.LOGPROBS: Capability.LOGPROBS,
    Field.STRUCTURED: Capability.STRUCTURED,
    Field.PENALTIES: Capability.PENALTIES,
    Field.LOGIT_BIAS: Capability.LOGIT_BIAS,
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who answers, and how; `peers` are the other models that the options name, by their ids."""

    served: Served
    strategy: Decoder
    options: Options
    budget: Budget
    key: Key | None
    arrival: float
    peers: Mapping[str, Served]

    @property
    def deadline(self) -> float | None:
        """When its time is over, on the event loop's clock."""
        limit = self.budget.deadline_ms
        return None if limit is None else self.arrival + limit / 1000


def choose(service: Service, key: Key | None, body: Sampled, arrival: float) -> Chosen:
    """The models and the strategy that the request names, checked against each other and the key.

    Engines may have to be started yet: last, not for what is wrong or the key may not use.
    """
    served = service.fleet.resolve(body.model)
    choice = served.choose(_named(body.decoding))
    strategy = find(choice.strategy)
    permit(key, choice, served.base)
    budget = service.settings.limits.bound(bounded(key, _budget(settings_of(body))))
    lacking = strategy.requires - served.engine.capabilities
    if lacking:
        needs = ", ".join(sorted(lacking))
        raise RequestError(
            f"the model {served.base!r} cannot do {strategy.name!r}: its engine lacks {needs}",
            "decoding.strategy" if choice.named else "model",
            "strategy_unsupported",
        )
    options = checked(strategy.options, choice.params, "decoding.params")
    peers = {name: _peer(service, key, name) for name in options.others}
    return Chosen(served, strategy, options, budget, key, arrival, peers)


def _peer(service: Service, key: Key | None, name: str) -> Served:
    """A model that speaks besides the request's own."""
    try:
        served = service.fleet.resolve(name)
    except RequestError as fault:
        raise RequestError(f"{PEERS}: {fault}", PEERS) from fault
    if served.id != served.base or Capability.GENERATE not in served.engine.capabilities:
        raise RequestError(f"{PEERS}: {name!r} is no model that writes text", PEERS)
    permit_model(key, served.base, PEERS)
    return served


def _named(decoding: str | Decoding | None) -> str | Mapping[str, Any] | None:
    if not isinstance(decoding, Decoding):
        return decoding
    return {"strategy": decoding.strategy, "params": decoding.params}


def settings_of(body: Sampled) -> Decoding:
    """The body's `decoding` field as an object."""
    return body.decoding if isinstance(body.decoding, Decoding) else Decoding()


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every choice of a request, besides its prompt."""

    sampling: Sampling
    n: int
    on_monitor_error: Mapping[str, str]


def terms(
    service: Service, chosen: Chosen, body: Sampled, structured: tuple[str, Structured] | None
) -> Terms:
    """Checks the body against strategy, engine and limits. Raises `RequestError`."""
    n = body.n or 1
    if n > service.settings.limits.n:
        message = f"n: at most {service.settings.limits.n}"
        raise RequestError(message, "n", "invalid_value")
    for field, param in wanted(body, structured):
        _honoured(chosen, field, param)
    return Terms(
        sampling(chosen, body, structured and structured[1]),
        n,
        strictness(service, settings_of(body)),
    )


def wanted(body: Sampled, structured: tuple[str, Structured] | None) -> Iterator[tuple[Field, str]]:
    """The fields that not every strategy honours and that this body uses, by their own names."""
    if logprobs(body) is not None:
        yield Field.LOGPROBS, "logprobs"
    if structured is not None:
        yield Field.STRUCTURED, structured[0]
    if (body.n or 1) > 1:
        yield Field.N, "n"
    if body.min_tokens:
        yield Field.MIN_TOKENS, "min_tokens"
    if body.logit_bias:
        yield Field.LOGIT_BIAS, "logit_bias"
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(body, name):
            yield Field.PENALTIES, name
    if body.repetition_penalty not in (None, 1):
        yield Field.PENALTIES, "repetition_penalty"
    if body.prompt_logprobs is not None:
        yield Field.ECHO, "prompt_logprobs"
    yield from _by_endpoint(body)


def _by_endpoint(body: Sampled) -> Iterator[tuple[Field, str]]:
    if isinstance(body, ChatBody) and body.tools and body.tool_choice != "none":
        yield Field.TOOLS, "tools"
    if isinstance(body, TextBody) and body.echo:
        yield Field.ECHO, "echo"


def _honoured(chosen: Chosen, field: Field, param: str) -> None:
    name = chosen.strategy.name
    if field not in chosen.strategy.honours:
        raise RequestError(f"the strategy {name!r} cannot do {param}", param, "unsupported")
    need = NEEDS.get(field)
    if need is not None and need not in chosen.served.engine.capabilities:
        model = chosen.served.base
        raise RequestError(f"the model {model!r} cannot do {param}", param, "unsupported")


def logprobs(body: Sampled) -> int | None:
    """How many alternatives stand beside each token; None for no log-probabilities."""
    if isinstance(body, TextBody):
        return body.logprobs
    if isinstance(body, ChatBody) and body.logprobs:
        return body.top_logprobs or 0
    if isinstance(body, ChatBody) and body.top_logprobs:
        message = "top_logprobs needs logprobs: true"
        raise RequestError(message, "top_logprobs", "invalid_value")
    return None


def sampling(chosen: Chosen, body: Sampled, structured: Structured | None) -> Sampling:
    """How tokens are drawn."""
    given: dict[str, Any] = {
        "temperature": body.temperature,
        "top_p": body.top_p if body.top_p != 0 else GREEDY_SHARE,
        "top_k": None if body.top_k == -1 else body.top_k,
        "min_p": body.min_p,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "repetition_penalty": body.repetition_penalty,
        "ignore_eos": body.ignore_eos,
        "min_tokens": body.min_tokens,
        "logprobs": logprobs(body),
        "structured": structured,
        "cache_salt": salt_of(chosen.key),
        "stop_token_ids": _stop_ids(chosen, body),
        "logit_bias": _bias(chosen, body),
    }
    if body.seed is not None and Capability.SEED not in chosen.served.engine.capabilities:
        raise RequestError("the model cannot be seeded", "seed", "unsupported")
    return Sampling(**{name: value for name, value in given.items() if value is not None})


def _stop_ids(chosen: Chosen, body: Sampled) -> tuple[int, ...] | None:
    if not body.stop_token_ids:
        return None
    check_ids(chosen.served, body.stop_token_ids, "stop_token_ids")
    return tuple(body.stop_token_ids)


def _bias(chosen: Chosen, body: Sampled) -> dict[int, float] | None:
    if not body.logit_bias:
        return None
    size = len(chosen.served.tokenizer)
    bias = {}
    for text, value in body.logit_bias.items():
        token = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else size
        if token >= size:
            message = f"logit_bias: {text[:20]!r} is no token id below {size}"
            raise RequestError(message, "logit_bias", "invalid_value")
        bias[token] = value
    return bias


def _budget(decoding: Decoding) -> Budget:
    asked = decoding.budget
    return Budget(**asked.model_dump()) if asked is not None else Budget()


def strictness(service: Service, decoding: Decoding) -> Mapping[str, str]:
    """What a failing monitor does, by monitor; a request may only make it stricter."""
    configured = service.fleet.strictness
    if decoding.on_monitor_error == "block":
        return {}
    strict = [name for name, does in configured.items() if does == "block"]
    if decoding.on_monitor_error == "continue" and strict:
        message = f"a request may not weaken what is configured for {', '.join(strict)}"
        raise RequestError(message, "decoding.on_monitor_error", "invalid_value")
    return configured


def most_tokens(chosen: Chosen, prompt: Prompt, body: Sampled, where: str) -> int:
    """The cap of one answer; raises `RequestError` for what the context cannot hold.

    `where` is the prompt's field.
    """
    context = chosen.served.max_context
    room = context - len(prompt.tokens)
    asked = [cap for cap in (body.max_tokens, _completion(body)) if cap is not None]
    least = 0 if isinstance(body, TextBody) and body.echo else 1
    most = min(asked, default=min(16, max(1, room)) if isinstance(body, TextBody) else max(1, room))
    if most < least:
        raise RequestError("max_tokens must be at least 1", "max_tokens", "invalid_value")
    if most > room:
        raise RequestError(
            f"the context holds {context} tokens; the prompt has {len(prompt.tokens)} and the "
            f"answer may have {most}",
            "max_tokens" if asked and room >= 1 else where,
            CONTEXT,
        )
    if body.min_tokens is not None and body.min_tokens > most:
        raise RequestError(f"min_tokens is above {most}", "min_tokens", "invalid_value")
    return most


def _completion(body: Sampled) -> int | None:
    return body.max_completion_tokens if isinstance(body, ChatBody) else None


def request_for(
    service: Service, chosen: Chosen, body: Sampled, terms: Terms, prompt: Prompt, most: int,
    peers: Mapping[str, Peer],
) -> DecodeRequest:  # fmt: skip
    """The request as every choice's run sees it."""
    decoding = settings_of(body)
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return DecodeRequest(
        engine=chosen.served.engine,
        prompt=prompt.tokens,
        messages=prompt.messages,
        strategy=chosen.strategy.name,
        options=chosen.options,
        sampling=terms.sampling,
        budget=chosen.budget,
        max_tokens=most,
        stop=tuple(stop),
        include_stop=bool(body.include_stop_str_in_output),
        n=terms.n,
        seed=body.seed,
        chat=isinstance(body, ChatBody),
        think=chosen.served.think,
        think_open=prompt.think_open,
        trace=_trace(decoding, TraceLevel(service.settings.limits.trace)),
        stream_events=bool(decoding.stream_events and body.stream),
        monitors=service.fleet.monitors,
        arrival=chosen.arrival,
        skip_special=body.skip_special_tokens is not False,
        on_monitor_error=terms.on_monitor_error,
        peers=peers,
    )


async def peers_of(
    chosen: Chosen, prompted: Callable[[Served], Awaitable[Prompt]]
) -> dict[str, Peer]:
    """The other models, their engines being up, each with its prompt. Raises `RequestError`."""
    found = {}
    for name, served in chosen.peers.items():
        prompt = (await prompted(served)).tokens
        if len(prompt) >= (context := served.max_context):
            why = f"the context of {name!r} holds {context} tokens; the prompt has {len(prompt)}"
            raise RequestError(f"{PEERS}: {why}", PEERS, CONTEXT)
        found[name] = Peer(served.engine, prompt)
    return found


def _trace(decoding: Decoding, most: TraceLevel) -> TraceLevel:
    """How much is told. Raises `RequestError` for more than the server tells."""
    levels = list(TraceLevel)
    if decoding.trace is None:
        return min(TraceLevel.SUMMARY, most, key=levels.index)
    asked = TraceLevel(decoding.trace)
    if levels.index(asked) > levels.index(most):
        message = f"decoding.trace: at most {most.value!r} here"
        raise RequestError(message, "decoding.trace", "invalid_value")
    return asked
