"""A small network in LLaDA's form: a transformer that sees both ways, and its own decoding loop.

Written for training and for cards: whole batches of equal length, no cache. It is saved under
LLaDA's own parameter names, so that anything that reads LLaDA can read it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

PREFIX = "model.transformer."


@dataclass(frozen=True)
class Form:
    """The sizes of a network."""

    vocabulary: int
    width: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 384
    context: int = 64
    theta: float = 10000.0
    eps: float = 1e-5


class Block(nn.Module):
    """Attention both ways, then a gated feed-forward network."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        width = form.width
        self.heads = form.heads
        self.attn_norm = nn.RMSNorm(width, form.eps)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.ff_norm = nn.RMSNorm(width, form.eps)
        self.ff_proj = nn.Linear(width, form.inner, bias=False)
        self.up_proj = nn.Linear(width, form.inner, bias=False)
        self.ff_out = nn.Linear(form.inner, width, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """x is [batch, length, width]."""
        inner = self.attn_norm(x)
        q, k, v = (
            each(inner).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.q_proj, self.k_proj, self.v_proj)
        )
        seen = F.scaled_dot_product_attention(turned(q, turn), turned(k, turn), v)
        x = x + self.attn_out(seen.transpose(1, 2).flatten(2))
        inner = self.ff_norm(x)
        after: Tensor = x + self.ff_out(F.silu(self.ff_proj(inner)) * self.up_proj(inner))
        return after


def turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions."""
    left, right = x.chunk(2, -1)
    return x * turn[0] + torch.cat([-right, left], -1) * turn[1]


class Denoiser(nn.Module):
    """Token ids [batch, length] to logits [batch, length, vocabulary]."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        # Unit variance, and an output layer of its own: tied to it, training fails.
        self.wte = nn.Embedding(form.vocabulary, form.width)
        self.layers = nn.ModuleList(Block(form) for _ in range(form.layers))
        self.ln_f = nn.RMSNorm(form.width, form.eps)
        self.ff_out = nn.Linear(form.width, form.vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """All positions at once; none is hidden from another."""
        per = self.form.width // self.form.heads
        rates = self.form.theta ** -(torch.arange(0, per, 2) / per)
        angles = torch.arange(ids.shape[1])[:, None] * rates
        both = torch.cat([angles, angles], -1)
        turn = (both.cos(), both.sin())
        x = self.wte(ids)
        for layer in self.layers:
            x = layer(x, turn)
        logits: Tensor = self.ff_out(self.ln_f(x))
        return logits


def save(model: Denoiser, folder: Path, ids: Mapping[str, int]) -> None:
    """Writes weights (bf16) and configuration as LLaDA has them; `ids` are mask, eos and pad."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        PREFIX + name.replace("layers.", "blocks."): tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    text = json.dumps({**_config(model.form), **ids}, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def _config(form: Form) -> dict[str, Any]:
    return {
        "model_type": "llada", "architectures": ["LLaDAModelLM"], "dtype": "bfloat16",
        "d_model": form.width, "n_heads": form.heads, "n_kv_heads": form.heads,
        "n_layers": form.layers, "mlp_hidden_size": form.inner, "mlp_ratio": 4,
        "vocab_size": form.vocabulary, "embedding_size": form.vocabulary,
        "max_sequence_length": form.context, "rope": True, "rope_theta": form.theta,
        "rope_full_precision": True, "rms_norm_eps": form.eps, "layer_norm_type": "rms",
        "block_type": "llama", "activation_type": "silu", "include_bias": False,
        "include_qkv_bias": False, "bias_for_layer_norm": False, "weight_tying": False,
        "alibi": False, "attention_layer_norm": False, "input_emb_norm": False,
        "scale_logits": False, "block_group_size": 1, "multi_query_attention": None,
    }  # fmt: skip


def load(folder: Path) -> Denoiser:
    """A saved network in float32."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    form = Form(
        config["vocab_size"], config["d_model"], config["n_layers"], config["n_heads"],
        config["mlp_hidden_size"], config["max_sequence_length"], config["rope_theta"],
        config["rms_norm_eps"],
    )  # fmt: skip
    model = Denoiser(form)
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict(
        {
            name.removeprefix(PREFIX).replace("blocks.", "layers."): tensor.float()
            for name, tensor in tensors.items()
        }
    )
    return model.eval()


@dataclass(frozen=True)
class Decoding:
    """One fixed schedule (arXiv 2502.09992): `block` positions at a time, `each` a pass."""

    block: int
    each: int = 2
    temperature: float = 0.9


@torch.inference_mode()
def fill(
    model: Denoiser, prompts: Sequence[Sequence[int]], length: int, mask: int, how: Decoding,
    seed: int,
) -> Tensor:  # fmt: skip
    """What is written on `length` positions behind prompts of one length, [prompts, length].

    At each pass the most confident masked positions of the block are filled.
    """
    generator = torch.Generator().manual_seed(seed)
    start = len(prompts[0])
    ids = torch.full((len(prompts), start + length), mask)
    ids[:, :start] = torch.tensor(prompts)
    for first in range(start, start + length, how.block):
        block = slice(first, first + how.block)
        while (open_ := ids[:, block] == mask).any():
            logits = model(ids)[:, block].double()
            logits[..., mask] = -torch.inf
            noise = torch.empty_like(logits).exponential_(generator=generator).log()
            tokens = (logits - how.temperature * noise).argmax(-1)
            sure = logits.softmax(-1).gather(-1, tokens[..., None])[..., 0]
            best = sure.masked_fill(~open_, -1).topk(min(how.each, how.block)).indices
            ids[:, block] = ids[:, block].scatter(1, best, tokens.gather(1, best))
    return ids[:, start:]
