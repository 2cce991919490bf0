"""Writes a Llama checkpoint with random weights and the miniature reasoner's tokenizer.

    python -m benchmarks.random_llama FOLDER [--width 768] [--layers 7] [--vocabulary N] [--seed 0]

For timing only: what it says means nothing. The defaults give 50 million parameters. A vocabulary
larger than the tokenizer's only makes logits as wide as a real model's.
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

TOKENIZER = Path(__file__).resolve().parent.parent / "testbed" / "weights" / "reasoner"
HEAD = 64


def write(
    folder: Path, width: int = 768, layers: int = 7, vocabulary: int | None = None, seed: int = 0
) -> int:
    """Writes the checkpoint in bf16; returns its number of parameters."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for file in TOKENIZER.glob("*token*"):
        shutil.copy(file, folder)
    for file in TOKENIZER.glob("*.jinja"):
        shutil.copy(file, folder)
    model = LlamaForCausalLM(_shape(width, layers, vocabulary)).to(torch.bfloat16)
    model.save_pretrained(folder)
    return sum(weights.numel() for weights in model.parameters())


def _shape(width: int, layers: int, vocabulary: int | None) -> LlamaConfig:
    like = LlamaConfig.from_pretrained(TOKENIZER)
    return LlamaConfig(
        vocab_size=vocabulary or like.vocab_size,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD,
        num_key_value_heads=width // HEAD,
        head_dim=HEAD,
        max_position_embeddings=2048,
        bos_token_id=like.bos_token_id,
        eos_token_id=like.eos_token_id,
        pad_token_id=like.pad_token_id,
        tie_word_embeddings=False,
    )


def main() -> None:
    """Parses the command line and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--seed", type=int, default=0)
    asked = vars(parser.parse_args())
    print(f"{write(**asked) / 1e6:.1f}M parameters")


if __name__ == "__main__":
    main()
