"""Tool parsers: in any pieces they find the calls that they find in one; nothing is lost."""

import json
import random
from copy import deepcopy
from typing import Any

import pytest

from engines.base import UnsupportedError
from engines.reference import ReferenceEngine, Spec
from engines.table import byte_tokenizer
from engines.tokenizer import Tokenizer
from engines.vllm.tools import tool_parser

pytestmark = pytest.mark.vllm

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
        },
    }
    for name in ("add", "look_up")
]
ADD = ("add", {"x": 1, "y": [2.5, {"z": "}</t"}]})
LOOK = ("look_up", {"text": 'a "quoted" ü\n'})


def hermes(*calls: tuple[str, dict[str, Any]]) -> str:
    return "".join(
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': given})}\n</tool_call>"
        for name, given in calls
    )


TEXTS = {
    "no call": ("hermes", "Nothing to call, 1 < 2 and <b>.", []),
    "one call": ("hermes", hermes(ADD), [ADD]),
    "text and two calls": ("hermes", "I look it up.\n" + hermes(ADD, LOOK), [ADD, LOOK]),
    "no arguments": ("hermes", hermes(("add", {})), [("add", {})]),
    "half a marker": ("hermes", "ends in <tool_ca", []),
    "no JSON": ("hermes", "<tool_call>add one</tool_call>", []),
    "llama": ("llama3_json", '{"name": "add", "parameters": {"x": 1}}', [("add", {"x": 1})]),
    "pythonic": ("pythonic", "[add(x=1), look_up(text='a')]",
                 [("add", {"x": 1}), ("look_up", {"text": "a"})]),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """One that has the forms' markers as tokens of their own, as those models' have."""
    backend = deepcopy(byte_tokenizer().hf)
    backend.add_tokens(["<tool_call>", "</tool_call>", "<|python_tag|>"], special_tokens=True)
    return Tokenizer(backend)


def folded(pieces: list[str], name: str, tokenizer: Tokenizer) -> tuple[str, list[Any]]:
    """Content and calls, put together as a client of the stream does."""
    parser = tool_parser(name, tokenizer, TOOLS)
    deltas = [delta for piece in pieces for delta in parser.feed(piece)] + parser.finish()
    content = ""
    calls: list[list[str]] = []
    ids = set()
    for delta in deltas:
        content += delta.get("content", "")
        for call in delta.get("tool_calls", ()):
            if call["index"] == len(calls):
                assert call["type"] == "function"
                ids.add(call["id"])
                calls.append([call["function"]["name"], ""])
            calls[call["index"]][1] += call["function"]["arguments"]
    assert len(ids) == len(calls)
    return content, [(called, json.loads(arguments)) for called, arguments in calls]


@pytest.mark.parametrize("case", TEXTS)
def test_in_any_pieces_it_finds_the_calls(case: str, tokenizer: Tokenizer) -> None:
    name, text, calls = TEXTS[case]
    whole = folded([text], name, tokenizer)
    assert whole[1] == calls
    if not calls:
        assert whole[0] == text
    assert folded(list(text), name, tokenizer) == whole
    rng = random.Random(1)
    for _ in range(10):
        cuts = sorted(rng.sample(range(len(text) + 1), 4))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert folded(pieces, name, tokenizer) == whole


@pytest.mark.parametrize("case", [case for case in TEXTS if TEXTS[case][0] == "hermes"])
def test_a_form_may_be_spelled_in_plain_tokens(case: str) -> None:
    name, text, calls = TEXTS[case]
    assert folded(list(text), name, byte_tokenizer())[1] == calls


def test_a_tokenizer_without_a_forms_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="'llama3_json' does not fit the tokenizer"):
        tool_parser("llama3_json", byte_tokenizer())


def test_content_before_a_call_leaves_at_once(tokenizer: Tokenizer) -> None:
    parser = tool_parser("hermes", tokenizer, TOOLS)
    assert parser.feed("Let me see. ") == [{"content": "Let me see. "}]
    assert parser.feed("<tool") == []
    assert parser.feed('_call>{"name": "add", ')[0]["tool_calls"][0]["function"]["name"] == "add"


def test_an_unknown_parser_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"'nonsense' is no tool parser; known: .*hermes"):
        tool_parser("nonsense", tokenizer)


def test_an_engine_without_parsers_says_so() -> None:
    engine = ReferenceEngine("r", Spec(model="testbed/weights/reasoner"))
    with pytest.raises(UnsupportedError) as caught:
        engine.tool_parser("hermes")
    assert caught.value.param == "tools"
