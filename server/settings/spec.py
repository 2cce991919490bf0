"""The shape of the configuration: one frozen model per section, strict about names.

Every field says here what it means; `docs/configuration.md` is tested to name them all. What needs
a look at another section (does that engine exist?) is checked in `crosscheck`.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from decoders.core.base import Budget

Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of all sections."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class StrategySpec(Section):
    """A strategy with parameters, checked against the strategy's own schema."""

    strategy: str
    """Name of the strategy."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Its parameters; those left out keep the strategy's defaults."""


class EngineSpec(Section):
    """One loaded model. Its kind says which keys it takes beside these, and checks them."""

    model_config = ConfigDict(extra="allow")

    kind: str
    """Kind of engine: vllm, reference, remote, table, ensemble, diffusion, …"""
    lazy: bool = False
    """Start at the first request instead of with the server."""

    def own(self) -> dict[str, Any]:
        """What the kind itself is given."""
        return {"kind": self.kind, "lazy": self.lazy, **(self.model_extra or {})}


class ModelSpec(Section):
    """A model as clients see it."""

    engine: str
    """Id of the engine that serves it."""
    chat_template: str | None = None
    """File with a chat template, where it is not the tokenizer's own."""
    think: tuple[str, str] | None = None
    """The model's think markers, `[OPEN, CLOSE]`; null if it has none."""
    tool_parser: str | None = None
    """Name of the engine's parser of tool calls; null reads `<tool_call>{…}</tool_call>`."""
    default: StrategySpec | None = None
    """What a request gets that names no strategy (null: plain)."""
    presets: dict[str, StrategySpec] = Field(default_factory=dict)
    """Strategies with parameters by name, asked for as `MODEL@NAME`."""
    owned_by: str = "satisfice"
    """What `/v1/models` says of its owner."""


class MonitorSpec(Section):
    """A monitor. Its kind says which keys it takes beside these, and checks them."""

    model_config = ConfigDict(extra="allow")

    kind: str
    """Kind of monitor: sequence_reward, verifier, …"""
    on_monitor_error: Literal["block", "continue"] = "block"
    """What a monitor that cannot answer does to a request: refuse it, or go on as degraded."""
    lazy: bool = False
    """Start at the first call instead of with the server."""

    def own(self) -> dict[str, Any]:
        """What the kind itself is given."""
        extra = self.model_extra or {}
        return {"kind": self.kind, "on_monitor_error": self.on_monitor_error, **extra}


class BudgetSpec(Section):
    """Hard limits of one request; null is no limit."""

    max_generated_tokens: Positive | None = None
    """Every token sampled, thrown-away ones included."""
    max_branches: Positive | None = None
    """Sequences started in all."""
    max_monitor_calls: Annotated[int, Field(ge=0)] | None = None
    """Calls of monitors."""
    deadline_ms: Positive | None = None
    """Milliseconds from the request's arrival."""

    def budget(self) -> Budget:
        """The same as the decoders' value."""
        return Budget(**self.model_dump())


class Rate(Section):
    """How much a key may ask for; a plain number is requests per minute."""

    requests_per_minute: Positive | None = None
    """Requests per minute, refilled continuously; a full minute may come at once."""
    tokens_per_minute: Positive | None = None
    """Sampled tokens per minute; the estimate is reserved, what was not sampled given back."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        plain = isinstance(value, int) and not isinstance(value, bool)
        return {"requests_per_minute": value} if plain else value


class KeySpec(Section):
    """An API key and what it may do; null is no restriction."""

    hash: str
    """SHA-256 of the key, 64 hexadecimal digits (`printf %s KEY | sha256sum`)."""
    strategies: list[str] | None = None
    """Strategies that it may use."""
    presets: list[str] | None = None
    """Presets that it may use, also where their strategy is not in `strategies`."""
    models: list[str] | None = None
    """Models that it may use, and guards that it may ask at /v1/moderations."""
    budget: BudgetSpec = BudgetSpec()
    """The most that one request may ask for, and what it gets that asks for nothing."""
    rate: Rate = Rate()
    """Requests and tokens per minute."""

    @field_validator("hash")
    @classmethod
    def _hexadecimal(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
            raise ValueError("must be a SHA-256 in 64 hexadecimal digits, never the key itself")
        return value.lower()


class Limits(Section):
    """What the server as a whole bears."""

    queue: Annotated[int, Field(ge=0)] = 256
    """Requests that may wait; one more is refused with 503."""
    wait_ms: Positive | None = 30_000
    """Expected work in the queue, as time; while there is more, what comes is refused with 503."""
    rows: Positive = 256
    """Sequences decoded at once, over all requests; what exceeds it waits."""
    branches: Positive = 128
    """Sequences that one request may decode at once, `n` included; more is 400."""
    body_bytes: Positive = 4 * 1024 * 1024
    """Size of a request's body; more is 413."""
    deadline_ms: Positive | None = None
    """The longest deadline of a request, and what it gets that sets none."""
    n: Positive = 128
    """Choices of one request."""
    trace: Literal["none", "summary", "full"] = "full"
    """The fullest trace of a request; a fuller one is 400. Full ones hold what a guard rejected."""

    @model_validator(mode="after")
    def _one_fits(self) -> Self:
        if self.branches > self.rows:
            raise ValueError(f"branches ({self.branches}) must not exceed rows ({self.rows})")
        return self

    def bound(self, budget: Budget) -> Budget:
        """The request's budget within the server's deadline."""
        asked, most = budget.deadline_ms, self.deadline_ms
        due = min((d for d in (asked, most) if d is not None), default=None)
        return Budget(
            budget.max_generated_tokens, budget.max_branches, budget.max_monitor_calls, due
        )


class ServerSpec(Section):
    """The process: where it listens, what it writes."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on; 0 takes a free one."""
    cors_origins: list[str] = Field(default_factory=list)
    """Origins that browsers may call from; none by default."""
    drain_s: Annotated[float, Field(ge=0)] = 30.0
    """Seconds that running requests get to end after SIGTERM."""
    keep_alive_s: Annotated[float, Field(gt=0, le=10)] = 5.0
    """Seconds of silence in a stream before a keep-alive comment."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: for people on a terminal, else JSON lines."""
    log_prompts: bool = False
    """Write prompts and answers into the log."""
    otlp_endpoint: str | None = None
    """OTLP/HTTP endpoint for traces, as `http://127.0.0.1:4318/v1/traces`; null: no tracing."""
    keys_file: str | None = None
    """File of API keys without restrictions, one a line (`#` begins a comment)."""
    secret_env: str = "SATISFICE_SECRET"
    """Environment variable with the secret that cache salts are made from."""


class Settings(Section):
    """The whole configuration."""

    server: ServerSpec = ServerSpec()
    """The process."""
    engines: dict[str, EngineSpec] = Field(default_factory=dict)
    """Loaded models by id."""
    monitors: dict[str, MonitorSpec] = Field(default_factory=dict)
    """Monitors by name."""
    models: dict[str, ModelSpec] = Field(default_factory=dict)
    """What clients can name, by id."""
    keys: dict[str, KeySpec] = Field(default_factory=dict)
    """API keys by name; with none here, in the environment or in `keys_file` the server is open."""
    limits: Limits = Limits()
    """What the server bears."""
