"""The nouns of decoding: request, options, commit, decoder.

A decoder is an async generator over a run; it reads like the paper's pseudocode and yields commits.
This file knows no engine kind, no HTTP and no strategy.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from engines.base import Capability, Delta, Engine, Finish, Sampling, TokenLogprob
from monitors.core.base import Message, Monitor

if TYPE_CHECKING:
    from decoders.core.run import Run


class RequestError(Exception):
    """The caller's fault. `param` is the path of the field, `code` a short name for programs."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class LimitError(Exception):
    """No room or no time: 429 or 503, never an outcome of a run. `retry_after` in seconds."""

    def __init__(self, message: str, retry_after: float, status: int = 503) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status


class DecoderError(Exception):
    """A strategy broke; its own exception is the cause."""


class MonitorCallsSpent(Exception):
    """The budget allows no further monitor call; uncaught, it ends the run as exhausted."""


class TextEnded(GeneratorExit):
    """Raised in a decoder where it gave out a commit: a stop string has ended the text there.

    `taken` tokens of that commit stand. A decoder that does not catch it ends at once, as when it
    is closed; one that does may tell what it knows of the whole text, and gives out nothing more.
    """

    def __init__(self, taken: int) -> None:
        super().__init__()
        self.taken = taken


class Field(StrEnum):
    """Request fields that not every strategy can honour."""

    LOGPROBS = "logprobs"
    STRUCTURED = "response_format"
    TOOLS = "tools"
    ECHO = "echo"
    N = "n"
    PENALTIES = "presence_penalty"
    MIN_TOKENS = "min_tokens"
    LOGIT_BIAS = "logit_bias"


class Channel(StrEnum):
    """Which part of the answer a token belongs to."""

    REASONING = "reasoning"
    CONTENT = "content"


class TraceLevel(StrEnum):
    """How much of what happened is reported."""

    NONE = "none"
    SUMMARY = "summary"
    FULL = "full"


class OutcomeKind(StrEnum):
    """How a run ended."""

    COMPLETE = "complete"
    BUDGET_EXHAUSTED = "budget_exhausted"
    REFUSED = "refused"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class Budget:
    """Hard limits of one request; None is no limit. `deadline_ms` counts from its arrival."""

    max_generated_tokens: int | None = None
    max_branches: int | None = None
    max_monitor_calls: int | None = None
    deadline_ms: int | None = None


@dataclass(slots=True)
class Usage:
    """What was spent. `committed` counts tokens the client was given, forced ones included."""

    prompt_tokens: int = 0
    committed_tokens: int = 0
    forced_tokens: int = 0
    reasoning_tokens: int = 0
    generated_tokens: int = 0
    discarded_tokens: int = 0
    engine_requests: int = 0
    forward_passes: int = 0
    monitor_calls: int = 0
    monitor_tokens: int = 0

    def withhold(self) -> None:
        """Nothing of the answer reached the client, so all that was sampled is thrown away."""
        self.committed_tokens = self.forced_tokens = self.reasoning_tokens = 0
        self.discarded_tokens = self.generated_tokens

    def decoding(self) -> dict[str, int]:
        """The `usage.decoding` object."""
        return {
            "generated_tokens": self.generated_tokens,
            "discarded_tokens": self.discarded_tokens,
            "engine_requests": self.engine_requests,
            "forward_passes": self.forward_passes,
            "monitor_calls": self.monitor_calls,
            "monitor_tokens": self.monitor_tokens,
        }


@dataclass(frozen=True, slots=True)
class Think:
    """A model's think markers as text and token ids."""

    open: str
    close: str
    open_ids: tuple[int, ...]
    close_ids: tuple[int, ...]


class Options(BaseModel):
    """Base of every strategy's parameters: frozen, strict about names and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @property
    def others(self) -> tuple[str, ...]:
        """Models that speak besides the request's own, by their ids: its `models`, if any."""
        return tuple(getattr(self, "models", None) or ())


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request may cost at most: rows decoded at once, tokens sampled, calls made."""

    rows: int
    generated_tokens: int
    engine_requests: int
    monitor_calls: int = 0


@dataclass(frozen=True, slots=True)
class Peer:
    """Another model that speaks in a request: its engine, and the same prompt in its tokens."""

    engine: Engine
    prompt: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRequest:
    """One checked request, as every choice's run sees it.

    `max_tokens` caps one finished answer. `prompt` are token ids. `messages` is the conversation
    as monitors read it (for raw completions one user message). `seed` None is unseeded.
    `monitors` are all configured ones by name; `arrival` is on the event loop's clock, in seconds.
    `peers` are the other models that its options name.
    """

    engine: Engine
    prompt: tuple[int, ...]
    messages: tuple[Message, ...] = ()
    strategy: str = "plain"
    options: Options = field(default_factory=Options)
    sampling: Sampling = field(default_factory=Sampling)
    budget: Budget = field(default_factory=Budget)
    max_tokens: int = 16
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    n: int = 1
    seed: int | None = None
    chat: bool = True
    think: Think | None = None
    think_open: bool = False
    trace: TraceLevel = TraceLevel.SUMMARY
    stream_events: bool = False
    monitors: Mapping[str, Monitor] = field(default_factory=dict)
    arrival: float = 0.0
    skip_special: bool = True
    on_monitor_error: Mapping[str, str] = field(default_factory=dict)
    peers: Mapping[str, Peer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Commit:
    """Tokens that stand and may be sent. `forced` ones were not sampled.

    `logprobs`: one entry per token, None for forced ones; None as a whole if not asked for.
    `finish` says that the answer ends with this commit, and how; with STOP its last token is the
    stop token. `sampled` counts the tokens that were sampled for it where they were another
    model's; None is all of `tokens`. `stopped` says that a stop string ends the text in its last
    token, where that is known before it is sent.
    """

    tokens: Sequence[int]
    forced: bool = False
    logprobs: Sequence[TokenLogprob | None] | None = None
    finish: Finish | None = None
    sampled: int | None = None
    stopped: bool = False

    @staticmethod
    def of(delta: Delta) -> "Commit":
        """A commit of all that an engine sampled, its end included."""
        return Commit(delta.tokens, False, delta.logprobs, delta.finish)


@dataclass(frozen=True, slots=True)
class Summary:
    """What `choices[i].decoding` says when a run has ended."""

    strategy: str
    outcome: OutcomeKind
    reason: str | None
    interventions: int
    branches: int
    held_back: int
    fields: Mapping[str, Any]
    trace: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        own: dict[str, Any] = {
            "strategy": self.strategy,
            "outcome": self.outcome.value,
            "interventions": self.interventions,
            "branches": self.branches,
            "held_back": self.held_back,
            **self.fields,
        }
        if self.reason is not None:
            own["reason"] = self.reason
        if self.trace is not None:
            own["trace"] = self.trace
        return own


@dataclass(frozen=True, slots=True)
class Piece:
    """What a run gives out: text that stands, with its tokens, or an event, or the end.

    `finish` ("stop", "length", "content_filter") and `summary` are set on the last piece only.
    `stop_reason` is the stop string or stop token id that ended it. `refusal` goes with
    content_filter. Without a chat all text is content.
    `logprobs` has one (token id, entry or None) per token of `tokens` when asked for.
    """

    reasoning: str = ""
    content: str = ""
    tokens: Sequence[int] = ()
    logprobs: Sequence[tuple[int, TokenLogprob | None]] | None = None
    event: Mapping[str, Any] | None = None
    finish: str | None = None
    stop_reason: str | int | None = None
    refusal: str | None = None
    summary: Summary | None = None


Body = Callable[["Run", Any], AsyncGenerator[Commit, None]]
Estimator = Callable[[Any, DecodeRequest], Estimate]
Checker = Callable[[Any, DecodeRequest], None]


def one_row(options: Options, request: DecodeRequest) -> Estimate:
    """The cost of a strategy that decodes one sequence."""
    return Estimate(rows=1, generated_tokens=request.max_tokens, engine_requests=1)


@dataclass(frozen=True, slots=True)
class Null:
    """A setting of a strategy at which it equals another one; a law checks it.

    `options` are the strategy's, `equals` names the other (with `other_options`);
    `greedy` says that it holds at temperature 0 only.
    """

    options: Mapping[str, Any]
    equals: str = "plain"
    other_options: Mapping[str, Any] = field(default_factory=dict)
    greedy: bool = False


@dataclass(frozen=True, slots=True)
class Decoder:
    """A registered strategy: its parameters, what it needs, what it honours, what it costs."""

    name: str
    body: Body
    options: type[Options]
    source: str
    requires: frozenset[Capability]
    honours: frozenset[Field]
    estimate: Estimator
    null: Null | None
    check: Checker | None = None

    @property
    def summary(self) -> str:
        """The first line of the strategy's docstring."""
        return (self.body.__doc__ or "").strip().partition("\n")[0]


def decoder(
    name: str,
    options: type[Options] = Options,
    *,
    source: str = "",
    requires: frozenset[Capability] | set[Capability] = frozenset({Capability.GENERATE}),
    honours: frozenset[Field] | set[Field] = frozenset({Field.LOGPROBS, Field.N}),
    estimate: Estimator = one_row,
    null: Null | None = None,
    check: Checker | None = None,
) -> Callable[[Body], Decoder]:
    """Registers the decorated async generator function as the strategy `name`.

    `check` raises `RequestError` for options that do not fit the request as a whole.
    """

    def register(body: Body) -> Decoder:
        needs, fields = frozenset(requires), frozenset(honours)
        return Decoder(name, body, options, source, needs, fields, estimate, null, check)

    return register
