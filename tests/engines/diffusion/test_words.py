"""Tokenizers as LLaDA and Dream publish them, both of which name code that is not run."""

import json
from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from engines.diffusion.words import tokenizer_of

MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|mask|>")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


@pytest.fixture
def dream(tmp_path: Path) -> Path:
    """Qwen2's two files and Dream's configuration, with the marks it adds."""
    vocabulary = {piece: at for at, piece in enumerate(sorted(ByteLevel.alphabet()))}
    vocabulary |= {"he": 256, "lo": 257, "llo": 258}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh e\nl o\nl lo\n")
    config = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "added_tokens_decoder": {
            str(259 + at): {"content": mark, "special": True} for at, mark in enumerate(MARKS)
        },
        "mask_token": "<|mask|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "chat_template": TEMPLATE,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_dreams_tokenizer_needs_no_code_of_its_own(dream: Path) -> None:
    tokenizer = tokenizer_of(str(dream))
    assert tokenizer.encode("hello<|mask|>") == [256, 258, 263]
    assert (tokenizer.eos_id, tokenizer.hf.mask_token_id, len(tokenizer)) == (259, 263, 264)
    assert tokenizer.decode(tokenizer.encode("wörld")) == "wörld"
    assert tokenizer.render([{"role": "user", "content": "a"}]) == "<|im_start|>a<|im_end|>"


def test_lladas_is_read_though_its_model_names_code(llada_folder: Path, tmp_path: Path) -> None:
    for file in llada_folder.glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((llada_folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_llada.LLaDAModelLM"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert tokenizer_of(str(tmp_path)).encode("abc") == tokenizer_of(str(llada_folder)).encode(
        "abc"
    )
