"""The shared vocabulary: every string comes back, markers stay visible, the template renders."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from testbed import REASONER, REWARD
from testbed.reasoner import corpus, render
from testbed.tokenizer import train_tokenizer
from testbed.traces import WAITS

TOKENIZER = AutoTokenizer.from_pretrained(REASONER)
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}},
}


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_every_string_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n\n\n",
        "a  b\t\r\n",
        "naïve café",
        "日本語 😀👩‍👩‍👧",
        "\u202e\u0000\ufffd",
        "12 345",
        "Ġ Ċ",
        " Wait",
    ],
)
def test_odd_strings_come_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False)) == text


def test_digits_and_newlines_stand_alone() -> None:
    assert TOKENIZER.tokenize("1234") == list("1234")
    assert len(TOKENIZER.encode("\n\n", add_special_tokens=False)) == 2


def test_a_written_wait_has_the_ids_of_training() -> None:
    (wait,) = TOKENIZER.encode(" Wait", add_special_tokens=False)
    trained = TOKENIZER.encode("So 184." + "\n" + WAITS[0], add_special_tokens=False)
    before = TOKENIZER.encode("So 184.\n", add_special_tokens=False)
    assert trained[: len(before) + 1] == [*before, wait]


def test_markers_are_single_visible_tokens() -> None:
    ids = TOKENIZER.encode("<think>\n1\n</think>\n\nHi<|end|>", add_special_tokens=False)
    assert TOKENIZER.convert_tokens_to_ids("<think>") == ids[0]
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "<think>\n1\n</think>\n\nHi"
    for token in ("<|user|>", "<|system|>", "<|assistant|>", "<|end|>", "</think>"):
        assert len(TOKENIZER.encode(token, add_special_tokens=False)) == 1


def test_text_and_pieces_give_the_same_ids() -> None:
    pieces = ["<think>\n", "24*3=72\nSo 72.\n", "</think>\n\n", "The answer is 72."]
    apart = [i for piece in pieces for i in TOKENIZER.encode(piece, add_special_tokens=False)]
    assert apart == TOKENIZER.encode("".join(pieces), add_special_tokens=False)


def test_training_again_gives_the_same_vocabulary() -> None:
    again = train_tokenizer(corpus(7))
    assert again.get_vocab() == TOKENIZER.get_vocab()
    assert 384 <= len(again) <= 640


def test_reward_shares_the_vocabulary() -> None:
    assert AutoTokenizer.from_pretrained(REWARD).get_vocab() == TOKENIZER.get_vocab()


def test_template_renders_roles_and_the_generation_prompt() -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    start = "<|begin|><|system|>S<|end|><|user|>U<|end|><|assistant|>"
    assert render(TOKENIZER, messages, True) == start
    assert render(TOKENIZER, messages, False) == start + "<think>\n\n</think>\n\n"


def test_template_drops_thinking_of_earlier_turns_only() -> None:
    answer = "<think>\n1+1=2\n</think>\n\n2"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]
    last = TOKENIZER.apply_chat_template(turns, tokenize=False)
    assert last == f"<|begin|><|user|>a<|end|><|assistant|>{answer}<|end|>"
    split = {"role": "assistant", "content": "2", "reasoning_content": "1+1=2"}
    assert TOKENIZER.apply_chat_template([turns[0], split], tokenize=False) == last
    more = TOKENIZER.apply_chat_template([*turns, {"role": "user", "content": "b"}], tokenize=False)
    assert more == "<|begin|><|user|>a<|end|><|assistant|>2<|end|><|user|>b<|end|>"


def test_template_lists_tools_and_shows_calls_and_results() -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "U"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3"},
    ]
    text = TOKENIZER.apply_chat_template(messages, tools=[TOOL], tokenize=False)
    assert '"name": "add"' in text and "<tools>" in text
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>' in text
    assert "<tool_response>\n3\n</tool_response>" in text


def test_template_refuses_an_unknown_role() -> None:
    with pytest.raises(Exception, match="unknown role"):
        TOKENIZER.apply_chat_template([{"role": "robot", "content": "x"}], tokenize=False)
