"""The request bodies of the API as pydantic models: only fields that are honoured.

Ranges stand here, so the OpenAPI document has them. What needs a model or an engine to be checked
is checked later; fields that are ignored or refused are in the table of fields.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

MOST = 2**31 - 1
SEED = 2**63


def _integral(value: Any) -> Any:
    """JSON does not tell 1.0 from 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _finite(value: Any) -> Any:
    """Free JSON without infinite numbers, which 1e999 would be."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, float) and not math.isfinite(one):
            raise ValueError("numbers must be finite")
        if isinstance(one, dict):
            stack.extend(one.values())
        elif isinstance(one, list):
            stack.extend(one)
    return value


Whole = BeforeValidator(_integral)
Tokens = Annotated[int, Field(ge=1, le=MOST), Whole]
Count = Annotated[int, Field(ge=0, le=MOST), Whole]
Top = Annotated[int, Field(ge=0, le=20), Whole]
Token = Annotated[int, Field(ge=0, le=MOST), Whole]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Stop = Annotated[str, Field(min_length=1, max_length=1024)]
Object = Annotated[dict[str, Any], AfterValidator(_finite)]


class Body(BaseModel):
    """Base of all bodies: strict about names and types."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class BudgetBody(Body):
    """Hard limits of the request, thrown-away work included; null is no limit."""

    max_generated_tokens: Tokens | None = None
    max_branches: Tokens | None = None
    max_monitor_calls: Count | None = None
    deadline_ms: Tokens | None = None


class Decoding(Body):
    """How to decode."""

    strategy: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Name of a strategy, see /v1/strategies; null is what the model's id says."""
    params: Object | None = None
    """The strategy's parameters, see /v1/strategies/NAME."""
    budget: BudgetBody | None = None
    trace: Literal["none", "summary", "full"] | None = None
    """What each choice reports: `none` the outcome and counts, `summary` (default) also what the
    strategy says of itself, `full` also every step."""
    stream_events: bool | None = None
    """Sends progress as chunks with an empty delta."""
    dry_run: bool | None = None
    """Validates and answers with the estimated cost; generates nothing."""
    on_monitor_error: Literal["block", "continue"] | None = None
    """Never weaker than what the configuration says."""


class StreamOptions(Body):
    """What a stream carries beside the answer."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None
    """Accepted without effect."""


class JsonSchema(Body):
    """A JSON Schema with a name."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    schema_: Object | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """The form that the content must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type json_schema and with no other")
        return self


class StructuredOutputs(Body):
    """A grammar that the content is held to: exactly one."""

    json_: Object | str | None = Field(None, alias="json")
    regex: Annotated[str, Field(min_length=1, max_length=65536)] | None = None
    choice: Annotated[list[Stop], Field(min_length=1, max_length=1024)] | None = None
    grammar: Annotated[str, Field(min_length=1, max_length=65536)] | None = None
    json_object: bool | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [self.json_, self.regex, self.choice, self.grammar, self.json_object or None]
        if sum(value is not None for value in given) != 1:
            raise ValueError("exactly one of json, regex, choice, grammar, json_object")
        return self


class FunctionCall(Body):
    """A call that the assistant made."""

    name: str
    arguments: str


class ToolCall(Body):
    """The same with its id."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None


class Part(Body):
    """A part of a message: text."""

    type: Annotated[str, Field(json_schema_extra={"enum": ["text", "refusal"]})]
    text: str | None = None
    refusal: str | None = None

    @field_validator("type")
    @classmethod
    def _text(cls, value: str) -> str:
        if value not in ("text", "refusal"):
            raise ValueError(f"content of type {value[:40]!r} is not supported: messages are text")
        return value

    @model_validator(mode="after")
    def _filled(self) -> Self:
        if getattr(self, self.type) is None:
            raise ValueError(f"a part of type {self.type} needs the field {self.type}")
        return self


class Message(Body):
    """One message of the conversation; an answer's message can be sent back as it is."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    type: Literal["text", "message"] | None = None
    """Some clients send it; it says nothing new."""
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        other = self.role == "assistant" and (self.tool_calls or self.refusal is not None)
        if self.content is None and not other:
            raise ValueError(f"a message of role {self.role} needs content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only the assistant calls tools")
        return self


class Function(Body):
    """A function that the model may call."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")]
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool: a function."""

    type: Literal["function"]
    function: Function


class FunctionName(Body):
    """A function by name."""

    name: str


class NamedTool(Body):
    """The one function that must be called."""

    type: Literal["function"]
    function: FunctionName


class Sampled(Body):
    """What chat and text completions have in common."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    """A model's id, or a virtual one: MODEL@STRATEGY, MODEL@PRESET."""
    decoding: Annotated[str, Field(min_length=1, max_length=256)] | Decoding | None = None
    """A strategy's name, or the strategy with parameters, budget and trace."""
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=-1, le=MOST), Whole] | None = None
    min_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    seed: Annotated[int, Field(ge=-SEED, le=SEED - 1), Whole] | None = None
    n: Annotated[int, Field(ge=1, le=1024), Whole] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=64)] | None = None
    stop_token_ids: Annotated[list[Token], Field(max_length=1024)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Count | None = None
    logit_bias: Annotated[
        dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=65536)
    ] | None = None  # fmt: skip
    """Token id (as a string) to what is added to its logit."""
    prompt_logprobs: Top | None = None
    return_tokens_as_token_ids: bool | None = None
    skip_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Object | str | None = None
    guided_regex: Annotated[str, Field(min_length=1, max_length=65536)] | None = None
    guided_choice: Annotated[list[Stop], Field(min_length=1, max_length=1024)] | None = None
    guided_grammar: Annotated[str, Field(min_length=1, max_length=65536)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @field_validator("stream_options")
    @classmethod
    def _streams(
        cls, options: StreamOptions | None, before: ValidationInfo
    ) -> StreamOptions | None:
        if options is not None and not before.data.get("stream"):
            raise ValueError("needs stream: true")
        return options

    def reporting(self, prompt_tokens: int) -> tuple[bool, int | None]:
        """Whether a stream ends with the usage, and the prompt's tokens if every chunk has some."""
        options = self.stream_options
        include = bool(options and options.include_usage)
        running = include and bool(options and options.continuous_usage_stats)
        return include, prompt_tokens if running else None


class ChatBody(Sampled):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=16384)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    reasoning_format: (
        Literal["both", "reasoning", "reasoning_content", "think_tags", "hidden"] | None
    ) = None
    include_reasoning: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: Object | None = None
    tools: Annotated[list[Tool], Field(max_length=1024)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None


class TextBody(Sampled):
    """Body of POST /v1/completions."""

    prompt: str | list[str] | list[Token] | list[list[Token]]
    """A text, its token ids, or a list of either."""
    logprobs: Top | None = None
    echo: bool | None = None
