"""What an engine is: one loaded model that can be stepped.

Holds the narrow core every engine offers (`generate`, `score`, `next_logprobs`), the values that
pass through it and the errors it may raise. It does not know strategies, budgets, requests or HTTP.

    BoundaryError            something at the edge failed (5xx)
      EngineError              this engine could not answer; others may
        EngineDeadError          it will not answer again without a restart
      EngineBusyError          it refused for load; the same request may pass later (503)
    UnsupportedError         the caller asked for what this engine cannot do (4xx)
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, Self

from engines.tokenizer import Tokenizer


class BoundaryError(Exception):
    """An engine, monitor or upstream failed; the caller did nothing wrong."""


class EngineError(BoundaryError):
    """This engine could not answer this call."""


class EngineDeadError(EngineError):
    """The engine is gone and will not answer again without a restart."""


class EngineBusyError(BoundaryError):
    """The engine refused the call for load; it may pass later."""


class UnsupportedError(Exception):
    """The caller asked for what this engine cannot do; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Capability(StrEnum):
    """What an engine can be asked for; strategies name what they require."""

    GENERATE = "generate"
    SCORE = "score"
    NEXT_LOGPROBS = "next_logprobs"
    LOGPROBS = "logprobs"
    PROMPT_LOGPROBS = "prompt_logprobs"
    SEED = "seed"
    BANNED = "banned"
    LOGIT_BIAS = "logit_bias"
    PENALTIES = "penalties"
    STRUCTURED = "structured"
    DIFFUSION = "diffusion"
    CLASSIFY = "classify"
    RULES = "rules"


POOLING = frozenset({Capability.CLASSIFY})
"""What an engine can be asked for whose model has labels in the place of a next token."""
GENERATING = frozenset(Capability) - POOLING - {Capability.RULES}


class Finish(StrEnum):
    """Why an engine stopped: a stop token (EOS included) or the limit."""

    STOP = "stop"
    LENGTH = "length"


class StructuredKind(StrEnum):
    """The grammars a generation can be held to."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"


@dataclass(frozen=True, slots=True)
class Structured:
    """A grammar: its kind and its value (a schema, a pattern, a list, or None for any object)."""

    kind: StructuredKind
    value: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How a diffusion engine fills a canvas of `length` masked positions.

    Blocks of `block` positions are filled from left to right; rules that count share `steps`
    forward passes evenly between them. `rule` names what is committed at each step, `numbers` are
    its own. `cache` is none (exact), prefix or dual, renewed at each block and after every
    `refresh` cached passes. `guidance` is the weight of classifier-free guidance; 0 is none.
    `early_stop` ends it once everything up to the first end token is settled. `eos` says when an
    end token may be committed: `free`, `last` (after all others) or `never`. `style` is the
    convention of `llada` or `dream` (how confidences are taken and steps counted); None is the
    model's own. `whole_blocks` gives a delta per block, not whenever the committed prefix grows.
    `record` asks for the order in which positions were filled, `estimate` for the answer's `nll`.
    """

    length: int
    block: int
    steps: int
    rule: str = "confidence"
    numbers: Mapping[str, float] = field(default_factory=dict)
    cache: str = "none"
    refresh: int | None = None
    guidance: float = 0.0
    early_stop: bool = True
    eos: str = "free"
    style: str | None = None
    whole_blocks: bool = False
    record: bool = False
    estimate: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """Which rule chooses among an ensemble's policies, with its flat parameters."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


COLDEST = 0.01
"""Temperatures above 0 and below this are this one, as in vLLM: exponents stay finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 is greedy; `banned` ids are never drawn.

    `logprobs` is None for none, else how many alternatives stand beside each sampled token.
    `stop_token_ids` come on top of the model's own end of sequence, unless `ignore_eos`.
    `paced` says not to sample far ahead of the reader; the tokens are the same. An engine that
    cannot wait samples ahead all the same. A diffusion engine needs a `schedule`, others refuse it.
    `rule` chooses among the policies of an ensemble; without one its first member speaks.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    banned: tuple[int, ...] = ()
    logprobs: int | None = None
    structured: Structured | None = None
    cache_salt: str | None = None
    paced: bool = False
    schedule: Schedule | None = None
    rule: Rule | None = None

    @property
    def heat(self) -> float:
        """The temperature as it is applied: 0, or at least COLDEST."""
        return self.temperature and max(self.temperature, COLDEST)

    def but(self, **changes: Any) -> Self:
        """The same sampling with some fields changed."""
        return replace(self, **changes) if changes else self


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token's log-probability (natural log, of the distribution that drew it).

    `top` are the most likely alternatives as (token id, log-probability), best first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Unmasked:
    """A position of a canvas that was filled at a forward pass; token None: it was masked again."""

    step: int
    position: int
    token: int | None
    confidence: float


@dataclass(frozen=True, slots=True)
class Fill:
    """What only a canvas has to say, since the last delta.

    `beyond` counts positions that were filled behind the end of the answer. `order` is there if
    the schedule asked to `record`, `nll` on the last delta if it asked to `estimate`: the mean
    negative log-probability of the tokens before anything was filled.
    """

    beyond: int = 0
    order: Sequence[Unmasked] = ()
    nll: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """How one token came about among several policies.

    `policy` is the name of the one that spoke, None for a mixture. `notes` are what the rule tells
    (utilities, multipliers). `degraded` is the reason where the rule failed and the first member
    spoke in its place.
    """

    policy: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    degraded: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """Tokens that an engine sampled since the last delta, the stop token included.

    `logprobs` has one entry per token if asked for, else None. `finish` is set on the last delta.
    `forwards` counts the passes of a diffusion model that it took; `fill` is a canvas's own.
    `choices` has one entry per token where a rule chose, else it is None.
    """

    tokens: Sequence[int]
    logprobs: Sequence[TokenLogprob] | None = None
    finish: Finish | None = None
    forwards: int = 0
    fill: Fill | None = None
    choices: Sequence[Choice] | None = None


class ToolParser(Protocol):
    """Finds tool calls in one answer as it grows.

    Its deltas are the API's: `{"content": text}` or `{"tool_calls": [{"index", "id", "type",
    "function": {"name", "arguments"}}]}`, where all but a call's first have only new arguments.
    """

    def feed(self, text: str) -> list[dict[str, Any]]:
        """The deltas that `text` settles."""

    def finish(self) -> list[dict[str, Any]]:
        """What was held back, now that nothing more comes."""


class Engine(ABC):
    """One loaded model. Written for one request at a time; concurrent awaits become one batch.

    Cancelling the awaiting task or closing the generator frees the request in the engine.
    """

    name: str
    kind: str
    tokenizer: Tokenizer
    max_context: int
    capabilities: frozenset[Capability] = frozenset({Capability.GENERATE})
    members: tuple[str, ...] = ()
    more_ends: frozenset[int] = frozenset()

    @property
    def ends(self) -> frozenset[int]:
        """Token ids that end an answer by themselves: the tokenizer's, and the model's own more."""
        eos = self.tokenizer.eos_id
        return self.more_ends if eos is None else self.more_ends | {eos}

    def ending(self, sampling: Sampling) -> frozenset[int]:
        """Token ids that end an answer which is sampled so."""
        own = frozenset[int]() if sampling.ignore_eos else self.ends
        return own.union(sampling.stop_token_ids)

    @abstractmethod
    async def start(self) -> None:
        """Loads the model; returns when it can answer."""

    @abstractmethod
    async def stop(self) -> None:
        """Frees everything; running calls end with `EngineDeadError`."""

    @abstractmethod
    async def check(self) -> None:
        """Returns if the engine can answer, else raises `EngineDeadError` with the reason."""

    @abstractmethod
    def generate(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        """Samples at most `limit` tokens (>= 1) after `prefix` (token ids, not empty)."""

    @abstractmethod
    async def score(self, prefix: Sequence[int], continuation: Sequence[int]) -> list[TokenLogprob]:
        """Log-probability of each token of `continuation` after `prefix`, temperature 1."""

    @abstractmethod
    async def next_logprobs(
        self,
        prefix: Sequence[int],
        k: int | None = None,
        *,
        tokens: Sequence[int] | None = None,
        member: str | None = None,
    ) -> dict[int, float]:
        """Next-token log-probabilities after `prefix`: of the `k` most likely, or of `tokens`."""

    async def prompt_logprobs(self, prompt: Sequence[int], top: int) -> list[TokenLogprob | None]:
        """Log-probability of each prompt token given those before it; None for the first."""
        raise UnsupportedError(f"engine {self.name!r} gives no prompt log-probabilities", "echo")

    async def classify(self, ids: Sequence[int], *, every: bool = False) -> list[list[float]]:
        """The model's raw logits, one per label: a row after the last token, or after every one."""
        raise UnsupportedError(f"engine {self.name!r} does not classify", "model")

    def check_rule(self, rule: Rule) -> None:
        """Returns if the engine can follow the rule; else UnsupportedError names the parameter."""
        raise UnsupportedError(f"engine {self.name!r} is no ensemble of policies", "model")

    def check_schedule(self, schedule: Schedule, prompt: int) -> None:
        """Returns if the engine can follow it behind `prompt` tokens.

        Else UnsupportedError names the schedule's field or the number of its rule.
        """
        raise UnsupportedError(f"engine {self.name!r} fills no canvases", "model")

    @property
    def running(self) -> int:
        """How many requests the engine works on now (0 when all are freed)."""
        raise NotImplementedError

    def figures(self) -> Mapping[str, float]:
        """Gauges and counters for /metrics, by short name; empty if it has none."""
        return {}

    def tool_parser(self, name: str, tools: Sequence[Mapping[str, Any]] = ()) -> ToolParser:
        """The parser `name` for one answer to a request with `tools`; ValueError if unknown."""
        raise UnsupportedError(f"engine {self.name!r} has no tool parser {name!r}", "tools")
