"""What every engine of ours refuses before it begins: the same faults, the same words.

It knows the engine's declared capabilities and nothing of how it works.
"""

from collections.abc import Sequence

from engines.base import Capability, Engine, Sampling, UnsupportedError

FIELDS = {
    Capability.STRUCTURED: ("structured", "response_format"),
    Capability.LOGPROBS: ("logprobs", "logprobs"),
    Capability.SEED: ("seed", "seed"),
    Capability.BANNED: ("banned", "bad_words"),
    Capability.LOGIT_BIAS: ("logit_bias", "logit_bias"),
    Capability.DIFFUSION: ("schedule", "decoding.strategy"),
}


def check_generate(engine: Engine, prefix: Sequence[int], sampling: Sampling, limit: int) -> None:
    """Refuses what `engine` cannot sample. Raises ValueError (our fault) or UnsupportedError."""
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    check_room(engine, prefix, 1)
    for capability, (field, param) in FIELDS.items():
        value = getattr(sampling, field)
        wanted = value is not None and value != () and value != {}
        if wanted and capability not in engine.capabilities:
            raise UnsupportedError(f"engine {engine.name!r} does not support {param}", param)
    penalised = sampling.presence_penalty or sampling.frequency_penalty
    penalised = bool(penalised) or sampling.repetition_penalty != 1
    if penalised and Capability.PENALTIES not in engine.capabilities:
        raise UnsupportedError(f"engine {engine.name!r} has no penalties", "presence_penalty")
    if sampling.rule is not None:
        engine.check_rule(sampling.rule)
        if penalised:
            raise UnsupportedError("presence_penalty: not with a policy rule", "presence_penalty")
    check_ids(engine, [*sampling.banned, *sampling.logit_bias], "logit_bias")


def check_room(engine: Engine, prefix: Sequence[int], more: int) -> None:
    """Refuses an empty prefix, foreign ids, and what leaves no room for `more` tokens."""
    if not prefix:
        raise ValueError("the prefix is empty")
    if len(prefix) + more > engine.max_context:
        raise UnsupportedError(
            f"{len(prefix)} tokens and {more} more do not fit in engine {engine.name!r}'s context"
            f" of {engine.max_context}",
            "messages",
        )
    check_ids(engine, prefix, "prompt")


def check_ids(engine: Engine, tokens: Sequence[int], param: str) -> None:
    """Refuses token ids that `engine` does not have: beyond its `vocabulary` or its tokenizer's."""
    size = max(getattr(engine, "vocabulary", 0), len(engine.tokenizer))
    if tokens and not (min(tokens) >= 0 and max(tokens) < size):
        raise UnsupportedError(f"a token id is outside the vocabulary of {size}", param)
