"""Detokenizing piece by piece: the whole text, also where bytes make no characters."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.table import byte_tokenizer
from engines.tokenizer import PENDING, Tokenizer

BYTES = byte_tokenizer()
LONE = BYTES.encode("é")[1]  # goes on with a character that never began


def pieces(tokenizer: Tokenizer, tokens: list[int], skip_special: bool = True) -> list[str]:
    stream = tokenizer.stream(skip_special=skip_special)
    return [stream.step(token) for token in tokens]


@given(st.text())
def test_the_pieces_of_a_text_are_the_text(text: str) -> None:
    told = "".join(pieces(BYTES, BYTES.encode(text), False))
    assert told.rstrip("\ufffd") == text.rstrip("\ufffd")


def test_a_character_comes_with_its_last_byte() -> None:
    assert pieces(BYTES, BYTES.encode("a€😀b")) == ["a", "", "", "€", "", "", "", "😀", "b"]


def test_bytes_that_make_no_character_come_after_a_while_and_text_goes_on() -> None:
    tokens = [*BYTES.encode("ab"), *[LONE] * (2 * PENDING + 3), *BYTES.encode("cé")]
    told = pieces(BYTES, tokens)
    assert "".join(told) == "ab" + "\ufffd" * (2 * PENDING + 3) + "cé"
    assert told[1 + PENDING] == "\ufffd" * PENDING


def test_skipped_tokens_leave_no_trace() -> None:
    end = BYTES.encode("<|end|>")
    tokens = [*BYTES.encode("a"), *end * 100, *BYTES.encode(" b")]
    assert "".join(pieces(BYTES, tokens)) == "a b"


def words() -> Tokenizer:
    """A tokenizer whose decoder drops the blank before the first word, as Llama's first did."""
    from tokenizers import Tokenizer as Rust
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "▁a": 1, "▁b": 2, "<0x80>": 3}
    rust = Rust(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    rust.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=rust))


def test_the_blank_after_given_up_bytes_stays() -> None:
    tokenizer = words()
    told = pieces(tokenizer, [1, *[3] * PENDING, 2])
    assert "".join(told) == "a" + "\ufffd" * PENDING + " b"


@pytest.mark.parametrize("token", [LONE, BYTES.encode("<|end|>")[0]])
def test_the_cost_of_a_step_does_not_grow(token: int) -> None:
    def seconds(length: int) -> float:
        began = time.thread_time()
        pieces(BYTES, [token] * length)
        return time.thread_time() - began

    few, many = (min(seconds(length) for _ in range(3)) for length in (2_000, 16_000))
    assert many < 24 * few  # 8 times, if linear; 64 times, if quadratic
