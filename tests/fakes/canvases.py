"""Tiny random diffusion checkpoints in the published formats, and slow networks that read them.

The networks are written from the architectures alone and share nothing with the engine's.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from engines import table
from engines.diffusion.engine import DiffusionEngine, build

CONTEXT = 160
WIDTH, HEADS, KV_HEADS, INNER, LAYERS = 32, 4, 2, 48, 2
Network = Callable[[list[int]], Tensor]
"""Token ids to logits [tokens, vocabulary], float32."""


def tokenizer_with_mask(folder: Path) -> tuple[int, int, int]:
    """Saves a byte tokenizer with a mask token; its size, the mask's id and the end's."""
    hf = table.byte_tokenizer().hf
    hf.add_special_tokens({"mask_token": "<|mask|>"})
    hf.save_pretrained(folder)
    assert isinstance(hf.mask_token_id, int)
    assert isinstance(hf.eos_token_id, int)
    return len(hf), hf.mask_token_id, hf.eos_token_id


def llada(folder: Path, *, seed: int = 3, shards: int = 1, wide: float = 0.35) -> Path:
    """A random checkpoint under LLaDA's own parameter names and configuration."""
    size, mask, eos = tokenizer_with_mask(folder)
    config = {
        "model_type": "llada", "architectures": ["LLaDAModelLM"], "d_model": WIDTH,
        "n_heads": HEADS, "n_kv_heads": KV_HEADS, "n_layers": LAYERS, "mlp_hidden_size": INNER,
        "mlp_ratio": 4, "vocab_size": size, "embedding_size": size, "max_sequence_length": CONTEXT,
        "mask_token_id": mask, "eos_token_id": eos, "pad_token_id": eos, "rope": True,
        "rope_theta": 500000.0, "rope_full_precision": True, "rms_norm_eps": 1e-5,
        "layer_norm_type": "rms", "block_type": "llama", "activation_type": "silu",
        "include_bias": False, "include_qkv_bias": False, "weight_tying": False, "alibi": False,
        "attention_layer_norm": False, "bias_for_layer_norm": False, "input_emb_norm": False,
        "scale_logits": False, "block_group_size": 1, "multi_query_attention": None,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    narrow = WIDTH * KV_HEADS // HEADS
    shapes: dict[str, tuple[int, ...]] = {"wte": (size, WIDTH), "ln_f": (WIDTH,)}
    shapes["ff_out"] = (size, WIDTH)
    for i in range(LAYERS):
        own = {
            "attn_norm": (WIDTH,), "q_proj": (WIDTH, WIDTH), "k_proj": (narrow, WIDTH),
            "v_proj": (narrow, WIDTH), "attn_out": (WIDTH, WIDTH), "ff_norm": (WIDTH,),
            "ff_proj": (INNER, WIDTH), "up_proj": (INNER, WIDTH), "ff_out": (WIDTH, INNER),
        }  # fmt: skip
        shapes.update({f"blocks.{i}.{name}": shape for name, shape in own.items()})
    tensors = {
        f"model.transformer.{name}.weight": torch.randn(shape) * wide
        if len(shape) == 2
        else 1 + 0.1 * torch.randn(shape)
        for name, shape in shapes.items()
    }
    # So that ends of sequence come, but not everywhere.
    tensors["model.transformer.ff_out.weight"][eos] *= 1.3
    write_shards(folder, tensors, shards)
    return folder


def write_shards(folder: Path, tensors: dict[str, Tensor], shards: int) -> None:
    """One file, or several with an index, as large checkpoints have them."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    index = {}
    for n in range(shards):
        name = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        part = {key: tensors[key] for key in list(tensors)[n::shards]}
        save_file(part, folder / name)
        index.update(dict.fromkeys(part, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def dream(folder: Path, *, seed: int = 4) -> Path:
    """A random checkpoint as Dream has it: Qwen2 with biases, under its own configuration."""
    size, mask, eos = tokenizer_with_mask(folder)
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(_qwen(size))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    write_shards(folder, {k: v.clone() for k, v in model.state_dict().items()}, 2)
    config = {
        "model_type": "Dream", "architectures": ["DreamModel"], "hidden_size": WIDTH,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "vocab_size": size, "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_scaling": None, "hidden_act": "silu",
        "mask_token_id": mask, "eos_token_id": eos, "tie_word_embeddings": False,
        "use_sliding_window": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _qwen(size: int) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=size,
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-6,
        rope_theta=1000000.0,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        tie_word_embeddings=False,
        initializer_range=0.35,
        attn_implementation="eager",
    )


def slow_llada(folder: Path) -> Network:
    """LLaDA's forward pass over one sequence, position by position and head by head."""
    w = {
        k.removeprefix("model.transformer."): v
        for k, v in load_file(folder / "model.safetensors").items()
    }
    per = WIDTH // HEADS
    rates = 500000.0 ** -(torch.arange(0, per, 2) / per)

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"]

    def rotate(x: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(len(x)).float(), rates)
        turn = torch.polar(torch.ones_like(angles), angles)
        turned = torch.complex(x[:, : per // 2], x[:, per // 2 :]) * turn
        return torch.cat([turned.real, turned.imag], -1)

    def attention(x: Tensor, block: str) -> Tensor:
        q, k, v = (x @ w[f"{block}.{one}_proj.weight"].T for one in "qkv")
        heads = []
        for h in range(HEADS):
            own, shared = slice(h * per, (h + 1) * per), h // (HEADS // KV_HEADS)
            theirs = slice(shared * per, (shared + 1) * per)
            seen = rotate(q[:, own]) @ rotate(k[:, theirs]).T / per**0.5
            heads.append(seen.softmax(-1) @ v[:, theirs])
        return torch.cat(heads, -1) @ w[f"{block}.attn_out.weight"].T

    def forward(ids: list[int]) -> Tensor:
        x = w["wte.weight"][ids]
        for i in range(LAYERS):
            block = f"blocks.{i}"
            x = x + attention(norm(x, f"{block}.attn_norm"), block)
            inner = norm(x, f"{block}.ff_norm")
            gate = inner @ w[f"{block}.ff_proj.weight"].T
            raised = gate * gate.sigmoid() * (inner @ w[f"{block}.up_proj.weight"].T)
            x = x + raised @ w[f"{block}.ff_out.weight"].T
        return norm(x, "ln_f") @ w["ff_out.weight"].T

    return forward


def slow_dream(folder: Path) -> Network:
    """transformers' Qwen2 seeing both ways; a position's logits stand one earlier."""
    shards: dict[str, Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        shards.update(load_file(shard))
    size = shards["lm_head.weight"].shape[0]
    model: Any = Qwen2ForCausalLM(_qwen(size)).eval()
    model.load_state_dict(shards)

    @torch.no_grad()
    def forward(ids: list[int]) -> Tensor:
        open_to_all = torch.zeros(1, 1, len(ids), len(ids))
        found: Tensor = model(
            torch.tensor([ids]), attention_mask=open_to_all, use_cache=False
        ).logits[0]
        return torch.cat([found[:1], found[:-1]])

    return forward


async def started(folder: Path, **spec: Any) -> DiffusionEngine:
    """A running engine over a checkpoint."""
    engine = build("canvas", {"kind": "diffusion", "model": str(folder), **spec})
    await engine.start()
    return engine
