"""Checkpoints as LLaDA and Dream publish them, read into our own network; no remote code.

Knows their configurations and parameter names. What a configuration asks for that the network
does not do is an error that names the key. Shards are mapped, not read into memory first.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from engines.checkpoints import end_ids
from engines.diffusion.model import Denoiser, Shape

NAMES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "llada": (
        (r"model\.transformer\.wte\.", "embed."),
        (r"model\.transformer\.ln_f\.", "norm."),
        (r"model\.transformer\.ff_out\.", "head."),
        (r"model\.transformer\.blocks\.(\d+)\.attn_norm\.", r"layers.\1.norm."),
        (r"model\.transformer\.blocks\.(\d+)\.ff_norm\.", r"layers.\1.inner_norm."),
        (r"model\.transformer\.blocks\.(\d+)\.([qkv])_proj\.", r"layers.\1.\2."),
        (r"model\.transformer\.blocks\.(\d+)\.attn_out\.", r"layers.\1.out."),
        (r"model\.transformer\.blocks\.(\d+)\.ff_proj\.", r"layers.\1.gate."),
        (r"model\.transformer\.blocks\.(\d+)\.up_proj\.", r"layers.\1.up."),
        (r"model\.transformer\.blocks\.(\d+)\.ff_out\.", r"layers.\1.down."),
    ),
    "dream": (
        (r"model\.embed_tokens\.", "embed."),
        (r"model\.norm\.", "norm."),
        (r"lm_head\.", "head."),
        (r"model\.layers\.(\d+)\.input_layernorm\.", r"layers.\1.norm."),
        (r"model\.layers\.(\d+)\.post_attention_layernorm\.", r"layers.\1.inner_norm."),
        (r"model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.", r"layers.\1.\2."),
        (r"model\.layers\.(\d+)\.self_attn\.o_proj\.", r"layers.\1.out."),
        (r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.", r"layers.\1.\2."),
    ),
}
# What the network does; a configuration that says otherwise is another one.
FIXED: Mapping[str, Mapping[str, Any]] = {
    "llada": {
        "block_type": "llama", "layer_norm_type": "rms", "activation_type": "silu", "rope": True,
        "alibi": False, "attention_layer_norm": False, "bias_for_layer_norm": False,
        "include_bias": False, "input_emb_norm": False, "scale_logits": False,
    },
    "dream": {"hidden_act": "silu", "rope_scaling": None, "use_sliding_window": False},
}  # fmt: skip
DREAM_CONTEXT = 2048
"""What Dream was trained on; its configuration repeats that of the model it began from."""


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The network that a `config.json` describes. Raises ValueError naming the key."""
    style = str(config.get("model_type", "")).lower()
    if style not in NAMES:
        raise ValueError(f"model_type: {config.get('model_type')!r} is neither llada nor Dream")
    for key, value in FIXED[style].items():
        if (found := config.get(key, value)) != value and not (value is False and found is None):
            raise ValueError(f"{key}: {found!r} is not supported, only {value!r}")
    try:
        return _llada(config) if style == "llada" else _dream(config)
    except KeyError as fault:
        raise ValueError(f"config.json lacks {fault}") from None


def _llada(config: Mapping[str, Any]) -> Shape:
    width, heads = config["d_model"], config["n_heads"]
    shared = 1 if config.get("multi_query_attention") else heads
    return Shape(
        vocabulary=config.get("embedding_size") or config["vocab_size"],
        width=width,
        layers=config["n_layers"],
        heads=heads,
        kv_heads=config.get("n_kv_heads") or shared,
        inner=config.get("mlp_hidden_size") or config["mlp_ratio"] * width,
        eps=config.get("rms_norm_eps", 1e-5),
        theta=config.get("rope_theta", 10000.0),
        context=config["max_sequence_length"],
        mask_id=config["mask_token_id"],
        ends=end_ids(config.get("eos_token_id")),
        style="llada",
        biased=bool(config.get("include_qkv_bias")),
        tied=bool(config.get("weight_tying")),
    )


def _dream(config: Mapping[str, Any]) -> Shape:
    heads = config["num_attention_heads"]
    return Shape(
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        inner=config["intermediate_size"],
        eps=config.get("rms_norm_eps", 1e-6),
        theta=config.get("rope_theta", 10000.0),
        context=min(DREAM_CONTEXT, config["max_position_embeddings"]),
        mask_id=config["mask_token_id"],
        ends=end_ids(config.get("eos_token_id")),
        style="dream",
        biased=True,
        shifted=True,
        tied=bool(config.get("tie_word_embeddings")),
    )


def folder_of(model: str) -> Path:
    """A checkpoint's folder, fetched from the hub if it is no folder here."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors", "*.txt"]))


def load(folder: Path, device: str, dtype: torch.dtype) -> Denoiser:
    """The network with a checkpoint's weights. Raises ValueError or OSError."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = shape_of(config)
    with torch.device("meta"):
        model = Denoiser(shape)
    tensors = {name: t.to(device, dtype) for name, t in _tensors(folder, shape.style)}
    if shape.tied:
        tensors["head.weight"] = tensors["embed.weight"]
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as fault:
        raise ValueError(f"{folder} does not fit its config.json: {fault}") from None
    return model.eval().requires_grad_(False)


def _tensors(folder: Path, style: str) -> Iterator[tuple[str, Tensor]]:
    """Our names and the checkpoint's tensors, shard by shard."""
    for shard in _shards(folder):
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                yield _ours(name, style), file.get_tensor(name)


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return [folder / "model.safetensors"]
    listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return [folder / name for name in sorted(set(listed.values()))]


def _ours(name: str, style: str) -> str:
    for theirs, ours in NAMES[style]:
        found, count = re.subn(f"^{theirs}", ours, name)
        if count:
            return found
    raise ValueError(f"{name}: no parameter of a {style} checkpoint")
