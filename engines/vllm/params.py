"""From this project's sampling to vLLM's, and from vLLM's outputs to deltas.

It does not know engines or requests, only how the two sides spell the same things.
"""

import json
from collections.abc import Sequence
from typing import Any

from vllm import SamplingParams
from vllm.outputs import CompletionOutput
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from engines.base import (
    Delta,
    EngineError,
    Finish,
    Sampling,
    Structured,
    StructuredKind,
    TokenLogprob,
    UnsupportedError,
)

# What a request may carry at most: beyond it vLLM's second runner fails in the worker, for all.
MOST_BANNED, MOST_BIASED, MOST_STOPS = 128, 1024, 128
FINISHES = {"stop": Finish.STOP, "repetition": Finish.STOP, "length": Finish.LENGTH, None: None}


def translated(sampling: Sampling, limit: int) -> SamplingParams:
    """vLLM's parameters for one streamed request without text."""
    _check_sizes(sampling)
    params = SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        seed=None if sampling.temperature == 0 else sampling.seed,
        stop_token_ids=list(sampling.stop_token_ids),
        ignore_eos=sampling.ignore_eos,
        max_tokens=limit,
        min_tokens=min(sampling.min_tokens, limit),
        logprobs=sampling.logprobs,
        logit_bias=dict(sampling.logit_bias) or None,
        structured_outputs=structured(sampling.structured),
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        skip_clone=True,
    )
    if sampling.banned:
        # What bad_words become once they are tokenized; there is no public spelling by id.
        params._bad_words_token_ids = [[token] for token in sampling.banned]
    return params


def _check_sizes(sampling: Sampling) -> None:
    for given, most, param in (
        (sampling.banned, MOST_BANNED, "bad_words"),
        (sampling.logit_bias, MOST_BIASED, "logit_bias"),
        (sampling.stop_token_ids, MOST_STOPS, "stop_token_ids"),
    ):
        if len(given) > most:
            raise UnsupportedError(f"{param}: at most {most} token ids, not {len(given)}", param)


def structured(asked: Structured | None) -> StructuredOutputsParams | None:
    """vLLM's grammar; raises UnsupportedError for one that it refuses outright."""
    if asked is None:
        return None
    try:
        match asked.kind:
            case StructuredKind.JSON_SCHEMA:
                return StructuredOutputsParams(json=_schema(asked.value))
            case StructuredKind.JSON_OBJECT:
                return StructuredOutputsParams(json_object=True)
            case StructuredKind.REGEX:
                return StructuredOutputsParams(regex=asked.value)
            case StructuredKind.CHOICE:
                return StructuredOutputsParams(choice=list(asked.value))
            case StructuredKind.GRAMMAR:
                return StructuredOutputsParams(grammar=asked.value)
    except (TypeError, ValueError) as fault:
        raise UnsupportedError(f"response_format: {fault}", "response_format") from fault


def _schema(value: Any) -> str:
    """As JSON text. Raises ValueError for a reference out of it, which would allow anything."""
    schema = json.loads(value) if isinstance(value, str) else value
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            target = part.get("$ref", "#")
            if isinstance(target, str) and not target.startswith("#"):
                raise ValueError(f"$ref to {target!r}: nothing outside the schema is read")
        waiting += (
            part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        )
    return json.dumps(schema)


def delta_of(output: CompletionOutput, sampling: Sampling) -> Delta:
    """One output of a streamed request. Raises what ended it early."""
    reason = output.finish_reason
    if reason not in FINISHES:
        if reason == "error" and sampling.structured is not None:
            raise UnsupportedError("the grammar could not be compiled", "response_format")
        raise EngineError(f"the engine ended the request with {reason!r}")
    tokens = output.token_ids
    return Delta(tokens, entries(tokens, output.logprobs, sampling.logprobs or 0), FINISHES[reason])


def entries(tokens: Sequence[int], logprobs: Any, top: int) -> list[TokenLogprob] | None:
    """vLLM's per-position mappings as entries: the token's own value and `top` alternatives."""
    if logprobs is None:
        return None
    return [entry(token, found, top) for token, found in zip(tokens, logprobs, strict=False)]


def entry(token: int, found: Any, top: int) -> TokenLogprob:
    """One position: `found` maps token ids to vLLM's Logprob, the token itself on top of `top`."""
    own = found[token].logprob
    ranked = sorted(found.items(), key=lambda item: (-item[1].logprob, item[0]))
    return TokenLogprob(token, own, tuple((other, value.logprob) for other, value in ranked[:top]))
