"""A tiny reward checkpoint with random weights: the real format, no training."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

TEMPLATE = """{%- for m in messages %}<|{{ m.role }}|>
{%- if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}
{{- m.content }}<|end|>{% endfor %}"""


def write_reward(folder: Path, labels: int = 1, context: int = 128) -> Path:
    """Writes a byte-level Llama reward of 2 layers; its padding token is its end token."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        num_labels=labels,
        pad_token_id=256,
    )
    model = LlamaForSequenceClassification(config)
    # Fresh heads are near zero; larger ones make mistakes in padding visible.
    torch.nn.init.normal_(model.score.weight, std=1.0)
    model.save_pretrained(folder)
    tokenizer(context).save_pretrained(folder)
    return folder


def tokenizer(context: int) -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.add_special_tokens(["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>", model_max_length=context
    )
    fast.chat_template = TEMPLATE
    return fast
