"""Tiny random checkpoints on disk, for engines that load what Hugging Face writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
)

from engines import table

CONTEXT = 512


def make_llama(
    folder: Path, *, seed: int = 7, hidden: int = 64, layers: int = 2, ends: Sequence[int] = ()
) -> Path:
    """A random Llama in float32 over the table engine's byte tokenizer.

    Heads are 32 wide, the least that vLLM has a CPU kernel for; the weights are wide enough that
    greedy decoding does not fall into one token. `ends` end an answer beside the tokenizer's own.
    """
    _saved(folder, LlamaForCausalLM, seed, hidden=hidden, layers=layers)
    if ends:
        own = GenerationConfig.from_pretrained(folder)
        own.eos_token_id = [own.eos_token_id, *ends]
        own.save_pretrained(folder)
    return folder


def make_reward(folder: Path, *, seed: int = 8, labels: int = 1) -> Path:
    """The same with a head over the last token, as reward models have it."""
    return _saved(folder, LlamaForSequenceClassification, seed, num_labels=labels)


def make_tagger(folder: Path, *, seed: int = 9, labels: int = 2) -> Path:
    """The same with a head over every token, as process reward models have it."""
    return _saved(folder, LlamaForTokenClassification, seed, num_labels=labels)


def _saved(
    folder: Path, kind: Any, seed: int, *, hidden: int = 64, layers: int = 2, **more: Any
) -> Path:
    tokenizer = table.byte_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        initializer_range=0.15,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_id,
        **more,
    )
    kind(config).save_pretrained(folder)
    tokenizer.hf.save_pretrained(folder)
    return folder
