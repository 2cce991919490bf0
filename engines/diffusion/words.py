"""The tokenizer of a diffusion checkpoint, without remote code.

LLaDA brings a tokenizer file. Dream brings code of its own around Qwen2's vocabulary and merges,
which are all that is needed. It knows no model.
"""

from pathlib import Path

from engines.auto import transformers
from engines.tokenizer import Tokenizer


def tokenizer_of(path: str) -> Tokenizer:
    """The tokenizer in a checkpoint's folder, or of a hub id. Raises ValueError or OSError."""
    folder = Path(path)
    if (folder / "tokenizer.json").exists() or not (folder / "merges.txt").exists():
        return Tokenizer.load(path)
    return Tokenizer(transformers().Qwen2TokenizerFast.from_pretrained(path))
