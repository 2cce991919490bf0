"""Tiny guards with random weights: each family's architecture, control tokens and template form.

The templates are worded here; only their shape is the real one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CONTEXT = 1024
WORDS = "safe unsafe Safe Unsafe Controversial controversial Safety: Yes No yes no User: Agent: "
ALTERNATE = """{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('roles must alternate') }}{%- endif -%}"""
LLAMA = """{{- '<|begin_of_text|><|start_header_id|>user<|end_header_id|>\\n\\nIs the last ' -}}
{{- ('Agent' if messages | length % 2 == 0 else 'User') + ' message unsafe?\\n' -}}
{%- for key, text in (categories or {'S1': 'Harm.'}).items() -%}{{ key + ': ' + text + '\\n' }}
{%- endfor -%}{{- '<BEGIN>\\n\\n' -}}
{%- for m in messages -%}ALTERNATE{{- 'User: ' if m.role == 'user' else 'Agent: ' -}}
CONTENT{{- '\\n\\n' -}}{%- endfor -%}
{{- '<END>\\n\\nsafe or unsafe?<|eot_id|>' -}}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>GAP' }}
{%- endif -%}""".replace("ALTERNATE", ALTERNATE)
AS_TEXT = "{{- m.content | trim -}}"
AS_PARTS = """{%- for c in m.content | selectattr('type', 'equalto', 'text') -%}
{{- c.text | trim -}}{%- endfor -%}"""
QWEN = """{{- '<|im_start|>user\\nIs the last message safe?\\n\\n<BEGIN>\\n\\n' -}}
{%- for m in messages -%}{{- m.role | upper + ': ' + m.content.split('</think>')[-1] -}}
{{- '\\n\\n' -}}{%- endfor -%}{{- '<END>\\n\\nSafety: ?<|im_end|>\\n' -}}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""
SHIELD = """{{- '<bos>Read this.\\n\\n<start_of_turn>\\nHuman Question: ' -}}
{{- messages[0].content | trim -}}{%- if messages | length > 1 -%}
{{- '\\nChatbot Response: ' + messages[1].content | trim -}}{%- endif -%}
{{- '\\n<end_of_turn>\\n\\n* ' + guideline + '\\n\\nIs it violated, Yes or No?\\n\\n' -}}"""
GRANITE = """{{- '<|start_of_role|>user<|end_of_role|>Look for ' + guardian_config.risk_name -}}
{%- for m in messages -%}{{ '\\n' + m.role | capitalize + ' Message: ' + m.content }}{% endfor -%}
{{- '\\nYes or No?<|end_of_text|>\\n' -}}
{%- if add_generation_prompt -%}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif -%}"""
LLAMA_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
COMMON = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.15,
    "tie_word_embeddings": False,
    **HEADS,
}
Made = tuple[Any, Any, tuple[str, ...], str]
FAMILIES: Mapping[str, Made] = {
    "llama_guard_3": (
        LlamaConfig, LlamaForCausalLM, LLAMA_TOKENS,
        LLAMA.replace("CONTENT", AS_TEXT).replace("GAP", ""),
    ),
    "llama_guard_4": (
        LlamaConfig, LlamaForCausalLM, LLAMA_TOKENS,
        LLAMA.replace("CONTENT", AS_PARTS).replace("GAP", "\\n\\n"),
    ),
    "qwen3guard": (Qwen3Config, Qwen3ForCausalLM, ("<|im_end|>", "<|im_start|>"), QWEN),
    "shieldgemma": (
        Gemma2Config, Gemma2ForCausalLM, ("<bos>", "<start_of_turn>", "<end_of_turn>"), SHIELD,
    ),
    "granite_guardian": (
        GraniteConfig, GraniteForCausalLM,
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"), GRANITE,
    ),
}  # fmt: skip


def tokenizer(control: tuple[str, ...], template: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows the verdicts as words, with and without a blank before them."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    core.train_from_iterator([WORDS * 4, *(word for word in WORDS.split())] * 3, trainer)
    core.add_special_tokens([*control])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=control[-1])
    fast.chat_template = template
    return fast


def write_guard(folder: Path, family: str, *, seed: int = 3, template: str | None = None) -> Path:
    """Writes such a checkpoint."""
    config, model, control, own = FAMILIES[family]
    torch.manual_seed(seed)
    tok = tokenizer(control, template or own)
    made = config(vocab_size=len(tok), bos_token_id=None, eos_token_id=tok.eos_token_id, **COMMON)
    model(made).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def spec(folder: Path | None, family: str, **fields: Any) -> dict[str, Any]:
    """A configuration of it; random weights put little mass on any verdict."""
    own = {"template_args": {"guideline": "No harm."}} if family == "shieldgemma" else {}
    where = {} if folder is None else {"model": str(folder)}
    base = {"kind": "generative_guard", "family": family, "min_mass": 1e-9}
    return {**base, **own, **where, **fields}
