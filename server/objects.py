"""The objects that the API answers with, as types: what the OpenAPI document declares.

They are OpenAI's, with our own fields beside them. It holds no code.
"""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class ErrorFields(TypedDict):
    """What went wrong. `param` is the path of the field, `code` a name for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(TypedDict):
    """The answer to everything that cannot be answered."""

    error: ErrorFields


class CompletionTokensDetails(TypedDict):
    """What the completion's tokens were."""

    reasoning_tokens: int


class Spent(TypedDict):
    """What decoding cost, thrown-away work included."""

    generated_tokens: int
    discarded_tokens: int
    engine_requests: int
    forward_passes: int
    monitor_calls: int
    monitor_tokens: int


class UsageFields(TypedDict):
    """What the client was given, and what was spent for it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: CompletionTokensDetails
    decoding: Spent


class CalledFunction(TypedDict):
    """A function with its arguments as JSON text."""

    name: str
    arguments: str


class CalledTool(TypedDict):
    """A call that the model makes."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(TypedDict):
    """The assistant's message. `content` is never null."""

    role: Literal["assistant"]
    content: str
    refusal: str | None
    reasoning: NotRequired[str | None]
    reasoning_content: NotRequired[str | None]
    tool_calls: NotRequired[list[CalledTool]]


FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class ChatChoice(TypedDict):
    """One answer of a chat completion."""

    index: int
    message: AnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    decoding: dict[str, Any]


class ChatCompletion(TypedDict):
    """The answer of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageFields
    prompt_logprobs: NotRequired[list[dict[str, Any] | None] | None]


class TextLogprobs(TypedDict):
    """Log-probabilities of a text completion; null for forced tokens and the first one."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class TextChoice(TypedDict):
    """One answer of a text completion."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    decoding: dict[str, Any]
    prompt_logprobs: NotRequired[list[dict[str, Any] | None] | None]


class TextCompletion(TypedDict):
    """The answer of POST /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: UsageFields


class Cost(TypedDict):
    """What a request may cost at most."""

    rows: int
    generated_tokens: int
    engine_requests: int
    monitor_calls: int


class Likely(TypedDict):
    """What the like of a request has cost, as far as that is known.

    `row_seconds`: sequences times the time they are decoded; null before one ended. It and
    `generated_tokens` are what such a request mostly costs; `mean_row_seconds` is what it costs on
    average, by which the queue is weighed. `seen`: how many requests that rests on; with 0 the
    tokens are the most it may cost.
    """

    generated_tokens: float
    row_seconds: float | None
    mean_row_seconds: float | None
    seen: int


class DryRun(TypedDict):
    """The answer to a dry run: what would be done, nothing done."""

    object: Literal["decoding.estimate"]
    model: str
    strategy: str
    params: dict[str, Any]
    prompt_tokens: int
    max_tokens: int
    estimate: Cost
    expected: Likely


class ModelObject(TypedDict):
    """A model, real or virtual."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: NotRequired[str | None]
    parent: NotRequired[str | None]
    max_model_len: NotRequired[int | None]
    members: NotRequired[list[str] | None]


class ModelList(TypedDict):
    """The answer of GET /v1/models."""

    object: Literal["list"]
    data: list[ModelObject]


class StrategyObject(TypedDict):
    """A strategy, with the JSON Schema of its parameters."""

    name: str
    object: Literal["strategy"]
    summary: str
    source: str
    requires: list[str]
    honours: list[str]
    parameters: dict[str, Any]


class StrategyList(TypedDict):
    """The answer of GET /v1/strategies."""

    object: Literal["list"]
    data: list[StrategyObject]


class Range(TypedDict):
    """The spread of a monitor's score on a stored set."""

    mean: float
    std: float
    low: float | None
    high: float | None
    threshold: float | None
    n: int


class MonitorCosts(TypedDict):
    """What a monitor has been asked since the start and what it took."""

    calls: int
    failures: int
    refused: int
    seconds: float
    tokens: int


class Bounds(TypedDict):
    """Between what the values of a monitor lie."""

    low: float
    high: float


class MonitorObject(TypedDict):
    """A monitor: what a threshold on it can be, what it has cost, what is wrong with it."""

    name: str
    object: Literal["monitor"]
    kind: str
    unit: str
    threshold: float
    bounds: Bounds | None
    calibration: Range | None
    circuit: Literal["closed", "half_open", "open"]
    costs: MonitorCosts | None
    warnings: list[str]


class MonitorList(TypedDict):
    """The answer of GET /v1/monitors."""

    object: Literal["list"]
    data: list[MonitorObject]


class Tokenized(TypedDict):
    """The answer of POST /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class TokenizerCard(TypedDict):
    """The answer of GET /tokenizer_info."""

    model: str
    tokenizer_class: str
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None


class Detokenized(TypedDict):
    """The answer of POST /detokenize."""

    prompt: str


class Verdict(TypedDict):
    """What a guard says of one text; `score` and `label` are its own."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]]
    score: float
    label: str | None


class Moderation(TypedDict):
    """The answer of POST /v1/moderations."""

    id: str
    model: str
    results: list[Verdict]


class Health(TypedDict):
    """The answer of GET /health."""

    status: Literal["ok"]


class Ready(TypedDict):
    """The answer of GET /ready."""

    ready: bool
    engines: dict[str, str]
    monitors: dict[str, str]
    cold: list[str]
    reasons: list[str]
