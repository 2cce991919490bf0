"""Every request field of OpenAI's and vLLM's chat and text completions, and what becomes of it.

The one table that parsing, the OpenAPI document and docs/api-fields.md are made from. It does not
know how a field is honoured.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from decoders.core.base import Field, RequestError
from decoders.core.registry import find, names


class Endpoint(StrEnum):
    """The two endpoints that decode."""

    CHAT = "chat"
    TEXT = "completions"


class Effect(StrEnum):
    """What becomes of a field."""

    HONOURED = "honoured"
    IGNORED = "accepted without effect"
    REFUSED = "400"


@dataclass(frozen=True, slots=True)
class Row:
    """One field. `harmless` are values of a refused field that ask for nothing; null always is."""

    name: str
    endpoints: tuple[Endpoint, ...]
    origin: str
    effect: Effect
    note: str
    harmless: tuple[Any, ...] = ()


BOTH, CHAT, TEXT = tuple(Endpoint), (Endpoint.CHAT,), (Endpoint.TEXT,)
YES, IGNORED, NO = Effect.HONOURED, Effect.IGNORED, Effect.REFUSED
OPENAI, VLLM, OURS = "OpenAI", "vLLM", "Satisfice"

TABLE: tuple[Row, ...] = (
    Row("model", BOTH, OPENAI, YES, "an id or a virtual id, `MODEL@STRATEGY` or `MODEL@PRESET`"),
    Row("messages", CHAT, OPENAI, YES, "text only: a part with an image, a file or audio is 400"),
    Row("prompt", TEXT, OPENAI, YES, "a string or token ids; a list of them only with `plain`"),
    Row("decoding", BOTH, OURS, YES, "the strategy, its parameters, the budget, the trace"),
    Row("reasoning_format", CHAT, OURS, YES, "which field thinking goes to; `both` by default"),
    Row("max_tokens", BOTH, OPENAI, YES, "one answer's cap; default: chat the context, else 16"),
    Row("max_completion_tokens", CHAT, OPENAI, YES, "the same; the smaller of the two holds"),
    Row("temperature", BOTH, OPENAI, YES, "0 to 2, 0 is greedy; 1 by default"),
    Row("top_p", BOTH, OPENAI, YES, "0 to 1; 0 leaves the most likely token"),
    Row("top_k", BOTH, VLLM, YES, "0 or -1 is off"),
    Row("min_p", BOTH, VLLM, YES, "0 to 1"),
    Row("presence_penalty", BOTH, OPENAI, YES, "-2 to 2; by strategy"),
    Row("frequency_penalty", BOTH, OPENAI, YES, "-2 to 2; by strategy"),
    Row("repetition_penalty", BOTH, VLLM, YES, "above 0, 1 is off; by strategy"),
    Row("seed", BOTH, OPENAI, YES, "the same request gives the same answer"),
    Row("n", BOTH, OPENAI, YES, "independent answers that share the budget"),
    Row("stop", BOTH, OPENAI, YES, "up to 64 strings; chat: in the content, else anywhere"),
    Row("stop_token_ids", BOTH, VLLM, YES, "beside the model's own end of sequence"),
    Row("include_stop_str_in_output", BOTH, VLLM, YES, "keeps the stop string in the text"),
    Row("ignore_eos", BOTH, VLLM, YES, "goes on after the model's end of sequence"),
    Row("min_tokens", BOTH, VLLM, YES, "no end before that many tokens; by strategy"),
    Row("logit_bias", BOTH, OPENAI, YES, "token id to -100 to 100; by strategy"),
    Row("logprobs", BOTH, OPENAI, YES, "chat: true or false; completions: how many, 0 to 20"),
    Row("top_logprobs", CHAT, OPENAI, YES, "0 to 20, needs `logprobs`"),
    Row("prompt_logprobs", BOTH, VLLM, YES, "0 to 20, not streamed; by strategy"),
    Row("return_tokens_as_token_ids", BOTH, VLLM, YES, "log-probabilities name `token_id:N`"),
    Row("skip_special_tokens", BOTH, VLLM, YES, "false shows special tokens in the text"),
    Row("add_special_tokens", BOTH, VLLM, YES, "chat: false by default; completions: true"),
    Row("add_generation_prompt", CHAT, VLLM, YES, "true by default"),
    Row("continue_final_message", CHAT, VLLM, YES, "the answer goes on in the last message"),
    Row("chat_template_kwargs", CHAT, VLLM, YES, "variables for the model's own chat template"),
    Row("reasoning_effort", CHAT, OPENAI, YES, "a variable for the chat template"),
    Row("include_reasoning", CHAT, VLLM, YES, "false is `reasoning_format: hidden`"),
    Row("response_format", BOTH, OPENAI, YES, "text, json_object or json_schema; by strategy"),
    Row("structured_outputs", BOTH, VLLM, YES, "json, regex, choice, grammar or json_object"),
    Row("guided_json", BOTH, VLLM, YES, "older name of `structured_outputs.json`"),
    Row("guided_regex", BOTH, VLLM, YES, "older name of `structured_outputs.regex`"),
    Row("guided_choice", BOTH, VLLM, YES, "older name of `structured_outputs.choice`"),
    Row("guided_grammar", BOTH, VLLM, YES, "older name of `structured_outputs.grammar`"),
    Row("tools", CHAT, OPENAI, YES, "functions only; by strategy"),
    Row("tool_choice", CHAT, OPENAI, YES, "none, auto, required or one function"),
    Row("parallel_tool_calls", CHAT, OPENAI, YES, "false keeps the first call only"),
    Row("stream", BOTH, OPENAI, YES, "server-sent events"),
    Row("stream_options", BOTH, OPENAI, YES, "include_usage, continuous_usage_stats"),
    Row("echo", TEXT, OPENAI, YES, "the prompt before the answer; by strategy"),
    # Accepted: they change nothing that a client could rely on.
    Row("user", BOTH, OPENAI, IGNORED, "nothing is kept"),
    Row("metadata", CHAT, OPENAI, IGNORED, "nothing is stored"),
    Row("store", CHAT, OPENAI, IGNORED, "nothing is stored"),
    Row("service_tier", CHAT, OPENAI, IGNORED, "there is one tier"),
    Row("safety_identifier", CHAT, OPENAI, IGNORED, "nothing is kept"),
    Row("prompt_cache_key", CHAT, OPENAI, IGNORED, "the prefix cache needs none"),
    Row("prompt_cache_retention", CHAT, OPENAI, IGNORED, "the prefix cache frees by use"),
    Row("prompt_cache_options", CHAT, OPENAI, IGNORED, "the prefix cache needs none"),
    Row("verbosity", CHAT, OPENAI, IGNORED, "the models have no such setting"),
    Row("spaces_between_special_tokens", BOTH, VLLM, IGNORED, "fast tokenizers add none"),
    Row("session_id", BOTH, VLLM, IGNORED, "requests are not routed by session"),
    Row("stream_interval", BOTH, VLLM, IGNORED, "tokens leave as they are ready"),
    Row("return_mm_kwargs", BOTH, VLLM, IGNORED, "there are no media", ()),
    Row("mm_payload", BOTH, VLLM, IGNORED, "there are no media"),
    # Refused, because the answer would not be what was asked for.
    Row("best_of", TEXT, OPENAI, NO, "use the strategy `best_of_n`", (1,)),
    Row("suffix", TEXT, OPENAI, NO, "text is not filled into the middle", ("",)),
    Row("audio", CHAT, OPENAI, NO, "answers are text"),
    Row("modalities", CHAT, OPENAI, NO, "answers are text", (["text"],)),
    Row("prediction", CHAT, OPENAI, NO, "there are no predicted outputs"),
    Row("web_search_options", CHAT, OPENAI, NO, "nothing is fetched"),
    Row("moderation", CHAT, OPENAI, NO, "use a strategy with a monitor"),
    Row("functions", CHAT, OPENAI, NO, "use `tools`", ([],)),
    Row("function_call", CHAT, OPENAI, NO, "use `tool_choice`", ("none",)),
    Row("use_beam_search", BOTH, VLLM, NO, "there is no beam search", (False,)),
    Row("length_penalty", BOTH, VLLM, NO, "there is no beam search", (1, 1.0)),
    Row("early_stopping", BOTH, VLLM, NO, "there is no beam search", (False,)),
    Row("watermarking", BOTH, VLLM, NO, "there is no watermark", (False,)),
    Row("bad_words", BOTH, VLLM, NO, "use `logit_bias`", ([],)),
    Row("allowed_token_ids", BOTH, VLLM, NO, "use `structured_outputs.choice` or `.regex`"),
    Row("logprob_token_ids", BOTH, VLLM, NO, "use `top_logprobs`"),
    Row("thinking_token_budget", BOTH, VLLM, NO, "use a strategy with a thinking budget"),
    Row("truncate_prompt_tokens", BOTH, VLLM, NO, "a prompt is never cut silently"),
    Row("truncation_side", BOTH, VLLM, NO, "a prompt is never cut silently"),
    Row("echo", CHAT, VLLM, NO, "use `continue_final_message`", (False,)),
    Row("documents", CHAT, VLLM, NO, "put the text into a message", ([],)),
    Row("chat_template", CHAT, VLLM, NO, "no code comes from a request"),
    Row("media_io_kwargs", CHAT, VLLM, NO, "messages are text", ({},)),
    Row("mm_processor_kwargs", CHAT, VLLM, NO, "messages are text", ({},)),
    Row("prompt_embeds", TEXT, VLLM, NO, "give text or token ids"),
    Row("guided_decoding_backend", BOTH, VLLM, NO, "the engine chooses it"),
    Row("guided_whitespace_pattern", BOTH, VLLM, NO, "put it into the grammar"),
    Row("priority", BOTH, VLLM, NO, "first come, first served", (0,)),
    Row("request_id", BOTH, VLLM, NO, "send the header `x-request-id`"),
    Row("return_token_ids", BOTH, VLLM, NO, "use `logprobs`", (False,)),
    Row("return_token_offsets", BOTH, VLLM, NO, "use `/tokenize`", (False,)),
    Row("return_prompt_text", BOTH, VLLM, NO, "use `/tokenize`", (False,)),
    Row("routed_experts_prompt_start", BOTH, VLLM, NO, "experts are not reported", (0,)),
    Row("cache_salt", BOTH, VLLM, NO, "the prefix cache is salted per API key"),
    Row("kv_transfer_params", BOTH, VLLM, NO, "caches are not transferred"),
    Row("ec_transfer_params", BOTH, VLLM, NO, "caches are not transferred"),
    Row("vllm_xargs", BOTH, VLLM, NO, "use `decoding.params`", ({},)),
    Row("repetition_detection", BOTH, VLLM, NO, "use `repetition_penalty`"),
    Row("logits_processors", BOTH, VLLM, NO, "no code comes from a request", ([],)),
)  # fmt: skip


@cache
def of(endpoint: Endpoint) -> Mapping[str, Row]:
    """The rows of one endpoint, by field name."""
    return {row.name: row for row in TABLE if endpoint in row.endpoints}


def honoured(endpoint: Endpoint, body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `body` that are honoured or unknown; raises `RequestError` for refused ones."""
    rows = of(endpoint)
    kept = {}
    for name, value in body.items():
        row = rows.get(name)
        if row is None or row.effect is YES:
            kept[name] = value
        elif row.effect is NO and value is not None and not _harmless(row, value):
            raise RequestError(
                f"{name} is not supported: {row.note}", name, "unsupported_parameter"
            )
    return kept


def _harmless(row: Row, value: Any) -> bool:
    """Whether the value is one of the row's, a boolean not taken for a number."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool)
               for one in row.harmless)  # fmt: skip


def markdown() -> str:
    """The text of docs/api-fields.md."""
    return "\n".join(_lines()) + "\n"


BY_STRATEGY = {
    Field.LOGPROBS: "`logprobs`, `top_logprobs`",
    Field.STRUCTURED: "`response_format`, `structured_outputs`, `guided_…`",
    Field.TOOLS: "`tools`",
    Field.ECHO: "`echo`, `prompt_logprobs`, a list of prompts",
    Field.N: "`n` above 1",
    Field.PENALTIES: "`presence_penalty`, `frequency_penalty`, `repetition_penalty`",
    Field.MIN_TOKENS: "`min_tokens`",
    Field.LOGIT_BIAS: "`logit_bias`",
}
"""Request fields by what a strategy must honour for them."""


def _lines() -> Iterator[str]:
    yield "# Request fields"
    yield ""
    yield "Made from `server/fields.py`. A field that does not stand here is 400, as are all fields"
    yield "marked 400 unless they are null or have one of the values that ask for nothing."
    yield ""
    for effect in Effect:
        yield f"## {effect.value[0].upper()}{effect.value[1:]}"
        yield ""
        yield "| field | endpoint | known from | note |"
        yield "|---|---|---|---|"
        for row in TABLE:
            if row.effect is effect:
                where = ", ".join(row.endpoints)
                yield f"| `{row.name}` | {where} | {row.origin} | {row.note} |"
        yield ""
    yield "## By strategy"
    yield ""
    yield "Not every strategy can give these a meaning; with one that is not named they are 400."
    yield ""
    yield "| field | strategies |"
    yield "|---|---|"
    for field, written in BY_STRATEGY.items():
        able = [f"`{name}`" for name in names() if field in find(name).honours]
        yield f"| {written} | {', '.join(able)} |"
