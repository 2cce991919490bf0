"""An engine behind HTTP: any OpenAI-compatible server's /v1/completions, tokens in and tokens out.

Made for vLLM, whose extensions return token ids; a server without them can be used with
`retokenize`, which gives up everything that needs exact tokens. It loads a tokenizer and no model.
"""

import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from engines.base import (
    GENERATING,
    Capability,
    Delta,
    Engine,
    EngineDeadError,
    EngineError,
    Finish,
    Sampling,
    Structured,
    StructuredKind,
    TokenLogprob,
    UnsupportedError,
)
from engines.checks import check_generate, check_ids, check_room
from engines.tokenizer import Tokenizer
from engines.upstream import Upstream, fault

COMPLETIONS = "/v1/completions"
PROBE = "Two tokenizers agree on 1,234 words?"
MARK = "token_id:"  # how vLLM spells a token where it is asked for ids
AT_ONCE = 128  # vLLM's limit on log-probabilities of chosen tokens
EXACT = GENERATING - {Capability.DIFFUSION}
LOOSE = frozenset({Capability.GENERATE, Capability.SEED})
# As far as vLLM lets a bias go.
NEVER = -100.0


class EngineArgs(BaseModel):
    """Waits in seconds: for a connection, and for the next bytes of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connect_s: float = Field(5.0, gt=0)
    timeout_s: float = Field(120.0, gt=0)


class Spec(BaseModel):
    """`{kind: remote, url, model, tokenizer}`; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["remote"] = "remote"
    url: str = Field(description="of the server, with or without /v1", pattern="^https?://")
    model: str = Field(description="its name there")
    tokenizer: str = Field(description="folder or hub id of the same tokenizer that serves there")
    api_key_env: str | None = Field(None, description="environment variable that holds the key")
    max_context: int | None = Field(None, ge=2, description="tokens; else what the server says")
    retokenize: bool = Field(False, description="accept a server that returns no token ids")
    engine_args: EngineArgs = EngineArgs()
    lazy: bool = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What its engine can be asked for."""
        return LOOSE if self.retokenize else EXACT


def build(name: str, spec: Mapping[str, Any]) -> "RemoteEngine":
    """The engine `name` as configured. Raises ValueError (pydantic's, with the key) for a fault."""
    return RemoteEngine(name, Spec.model_validate(dict(spec)))


def sampling_fields(sampling: Sampling) -> dict[str, Any]:
    """The body's fields; all are sent, since a server may have defaults of its own.

    A banned token gets the lowest bias there is, which is exact for any usual logits.
    """
    bias = {**sampling.logit_bias, **dict.fromkeys(sampling.banned, NEVER)}
    fields: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "stop_token_ids": list(sampling.stop_token_ids),
        "ignore_eos": sampling.ignore_eos,
        "min_tokens": sampling.min_tokens,
        "seed": sampling.seed,
        "logprobs": sampling.logprobs,
        "logit_bias": {str(token): value for token, value in bias.items()} or None,
        "cache_salt": sampling.cache_salt,
        "structured_outputs": sampling.structured and structured_field(sampling.structured),
    }
    return {name: value for name, value in fields.items() if value is not None}


def structured_field(structured: Structured) -> dict[str, Any]:
    """vLLM's `structured_outputs`."""
    if structured.kind is StructuredKind.JSON_OBJECT:
        return {"json_object": True}
    key = "json" if structured.kind is StructuredKind.JSON_SCHEMA else structured.kind.value
    return {key: structured.value}


def loose_fields(sampling: Sampling, tokenizer: Tokenizer) -> dict[str, Any]:
    """The body's fields in OpenAI's own API; stop tokens go as texts, four at most.

    Raises UnsupportedError for what that API has no field for.
    """
    for name in ("top_k", "min_p", "min_tokens", "ignore_eos"):
        if getattr(sampling, name):
            raise UnsupportedError(f"an upstream without token ids has no {name}", name)
    if len(sampling.stop_token_ids) > 4:
        raise UnsupportedError("the upstream takes four stop texts", "stop_token_ids")
    stops = [tokenizer.decode([token], skip_special=False) for token in sampling.stop_token_ids]
    fields = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
    return {k: v for k, v in {**fields, "stop": stops or None}.items() if v is not None}


def ranked(top: Mapping[str, float], k: int | None) -> tuple[tuple[int, float], ...]:
    """The `k` likeliest of one position's {"token_id:N": log-probability}, best first."""
    pairs = [(int(name.removeprefix(MARK)), value) for name, value in top.items()]
    return tuple(sorted(pairs, key=lambda pair: -pair[1])[:k])


def entries(logprobs: Mapping[str, Any], k: int) -> list[TokenLogprob]:
    """vLLM's completion log-probabilities, one entry per token."""
    rows = zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    )
    return [TokenLogprob(int(t.removeprefix(MARK)), p, ranked(top, k)) for t, p, top in rows]


def prompt_entry(token: int, row: Mapping[str, Any] | None, top: int) -> TokenLogprob | None:
    """One of vLLM's prompt log-probabilities, {"N": {"logprob": …}}."""
    if row is None:
        return None
    found = {name: one["logprob"] for name, one in row.items()}
    return TokenLogprob(token, found[str(token)], ranked(found, top))


class RemoteEngine(Engine):
    """A model served elsewhere; concurrent calls are its upstream's batch."""

    kind = "remote"
    capabilities = EXACT

    def __init__(self, name: str, spec: Spec) -> None:
        self.name, self.spec = name, spec
        self.capabilities = spec.capabilities
        self._upstream: Upstream | None = None
        self._running = 0

    async def start(self) -> None:
        """Connects, and refuses an upstream that lacks what the specification promises."""
        key = os.environ.get(self.spec.api_key_env) if self.spec.api_key_env else None
        if self.spec.api_key_env and not key:
            raise EngineError(f"engine {self.name!r}: {self.spec.api_key_env} is not set")
        self.tokenizer = Tokenizer.load(self.spec.tokenizer)
        args = self.spec.engine_args
        timeout = httpx.Timeout(args.timeout_s, connect=args.connect_s)
        self._upstream = Upstream(self.name, self.spec.url, key, timeout)
        try:
            self.max_context = await self._context()
            await self._probe()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Closes every connection, which ends running calls."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            await upstream.close()

    async def check(self) -> None:
        """Asks the upstream's /health, or its models where it has none."""
        try:
            status, _ = await self._server.get("/health")
            if status >= 500:
                raise EngineError(f"upstream of engine {self.name!r} answers {status} to /health")
            if status != 200:
                await self._models()
        except EngineDeadError:
            raise
        except EngineError as reason:
            raise EngineDeadError(str(reason)) from reason

    @property
    def running(self) -> int:
        """Calls under way here."""
        return self._running

    def figures(self) -> Mapping[str, float]:
        """Calls under way."""
        return {"running": self._running}

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        """Streams what the upstream samples; closing it closes the connection."""
        check_generate(self, prefix, sampling, limit)
        limit = min(limit, self.max_context - len(prefix))
        sampling = sampling.but(min_tokens=min(sampling.min_tokens, limit))
        body = {**self._body(prefix, limit), **self._fields(sampling), "stream": True}
        with self._working():
            async with aclosing(self._server.events(COMPLETIONS, body)) as events:
                left = limit
                async for event in events:
                    delta = self._delta(event, sampling, left)
                    if delta is None:
                        continue
                    left -= len(delta.tokens)
                    yield delta
                    if delta.finish:
                        return
        raise EngineError(f"upstream of engine {self.name!r} ended its answer without a reason")

    async def score(self, prefix: Sequence[int], continuation: Sequence[int]) -> list[TokenLogprob]:
        """From the upstream's prompt log-probabilities; it samples one token on top."""
        check_ids(self, continuation, "prompt")
        found = await self.prompt_logprobs([*prefix, *continuation], 0)
        return [one for one in found[len(prefix) :] if one is not None]

    async def next_logprobs(
        self,
        prefix: Sequence[int],
        k: int | None = None,
        *,
        tokens: Sequence[int] | None = None,
        member: str | None = None,
    ) -> dict[int, float]:
        """From one sampled token; how large `k` may be is the upstream's to say."""
        self._need(Capability.NEXT_LOGPROBS, "logprobs")
        check_room(self, prefix, 1)
        if tokens is None:
            return dict(ranked(await self._next(prefix, {"logprobs": -1 if k is None else k}), k))
        check_ids(self, tokens, "tokens")
        found: dict[int, float] = {}
        for start in range(0, len(tokens), AT_ONCE):
            some = list(tokens[start : start + AT_ONCE])
            asked = {"logprobs": len(some), "logprob_token_ids": some}
            found.update(ranked(await self._next(prefix, asked), None))
        return {token: found[token] for token in tokens}

    async def prompt_logprobs(self, prompt: Sequence[int], top: int) -> list[TokenLogprob | None]:
        """The upstream's own, one position short of the context since it must sample one token."""
        self._need(Capability.PROMPT_LOGPROBS, "echo")
        check_room(self, prompt, 1)
        with self._working():
            answer = await self._server.post(
                COMPLETIONS, {**self._body(prompt, 1), **greedy(), "prompt_logprobs": top}
            )
        rows = answer["choices"][0]["prompt_logprobs"]
        return [prompt_entry(token, row, top) for token, row in zip(prompt, rows, strict=True)]

    async def _next(self, prefix: Sequence[int], asked: Mapping[str, Any]) -> dict[str, float]:
        with self._working():
            body = {**self._body(prefix, 1), **greedy(), **asked}
            answer = await self._server.post(COMPLETIONS, body)
        found: dict[str, float] = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        return found

    def _body(self, prefix: Sequence[int], limit: int) -> dict[str, Any]:
        body = {"model": self.spec.model, "prompt": list(prefix), "max_tokens": limit}
        exact = {
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "add_special_tokens": False,
            "skip_special_tokens": False,
        }
        return body if self.spec.retokenize else {**body, **exact}

    def _fields(self, sampling: Sampling) -> dict[str, Any]:
        if self.spec.retokenize:
            return loose_fields(sampling, self.tokenizer)
        return sampling_fields(sampling)

    def _delta(self, event: Mapping[str, Any], sampling: Sampling, left: int) -> Delta | None:
        """What one event says, or None where it says nothing; `left` tokens may still come."""
        if not event["choices"]:
            return None
        choice = event["choices"][0]
        finish = self._finish(choice.get("finish_reason"))
        if self.spec.retokenize:
            return self._retokenized(choice["text"], finish, sampling, left)
        tokens = choice["token_ids"]
        logprobs = None
        if sampling.logprobs is not None:
            logprobs = entries(choice["logprobs"], sampling.logprobs) if tokens else []
        return Delta(tokens, logprobs, finish) if tokens or finish else None

    def _retokenized(
        self, text: str, finish: Finish | None, sampling: Sampling, left: int
    ) -> Delta | None:
        """The text in our tokens, which may be more than the server's: cut to what is left.

        A server does not say which token stopped it; the first asked for stands for all.
        """
        tokens = self.tokenizer.encode(text, special=False)
        if finish is Finish.STOP:
            ends = (*sampling.stop_token_ids, self.tokenizer.eos_id)
            tokens += [end for end in ends if end is not None][:1]
        if len(tokens) >= left and finish is not Finish.STOP:
            finish = Finish.LENGTH
        tokens = tokens[:left]
        return Delta(tokens, None, finish) if tokens or finish else None

    def _finish(self, reason: str | None) -> Finish | None:
        if reason not in (None, "stop", "length"):
            raise EngineError(f"upstream of engine {self.name!r} ended with {reason!r}")
        return None if reason is None else Finish(reason)

    @property
    def _server(self) -> Upstream:
        if self._upstream is None:
            raise EngineDeadError(f"engine {self.name!r} is not started")
        return self._upstream

    def _need(self, capability: Capability, param: str) -> None:
        if capability not in self.capabilities:
            raise UnsupportedError(f"engine {self.name!r} gives no log-probabilities", param)

    async def _models(self) -> list[Mapping[str, Any]]:
        status, body = await self._server.get("/v1/models")
        if status != 200:
            raise fault(self.name, status, body)
        models: list[Mapping[str, Any]] = body["data"]
        return models

    async def _context(self) -> int:
        """The context in tokens; raises EngineError where the model is not served there."""
        models = {one["id"]: one for one in await self._models()}
        if self.spec.model not in models:
            raise EngineError(
                f"upstream of engine {self.name!r} serves {sorted(models)}, not {self.spec.model!r}"
            )
        context = self.spec.max_context or models[self.spec.model].get("max_model_len")
        if context is None:
            raise EngineError(f"engine {self.name!r}: the server tells no context; set max_context")
        return int(context)

    async def _probe(self) -> None:
        """Samples one token to see that ids come back, and compares tokenizers where possible."""
        if self.spec.retokenize:
            return
        ids = self.tokenizer.encode(PROBE, special=False)
        answer = await self._server.post(COMPLETIONS, {**self._body(ids, 1), **greedy()})
        choice = answer["choices"][0]
        if len(choice.get("token_ids") or ()) != 1:
            raise EngineError(
                f"upstream of engine {self.name!r} returns no token ids; set retokenize: true to"
                " use its text (no log-probabilities, scores, bans or exact stop tokens)"
            )
        asked = {"model": self.spec.model, "prompt": PROBE, "add_special_tokens": False}
        try:
            theirs = (await self._server.post("/tokenize", asked))["tokens"]
        except (EngineError, UnsupportedError, KeyError, TypeError):
            return  # not every server tokenizes
        if theirs != ids:
            raise EngineError(
                f"engine {self.name!r}: {self.spec.tokenizer!r} is not the tokenizer served there"
            )

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


def greedy() -> dict[str, Any]:
    """The fields of a request whose sampled token does not matter."""
    return sampling_fields(Sampling(temperature=0, ignore_eos=True))
