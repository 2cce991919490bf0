"""Where the final answer is found, what it reads as, and that reading is stable and quick."""

import json
import os
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.core.answers import AnswerKind, canonical


def key(text: str, kind: AnswerKind = "auto") -> str | None:
    answer = canonical(text, kind)
    return answer.key if answer else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"First \boxed{1}, no: \boxed{\frac{3}{4}}. Done.", "number:3/4"),
        (r"\boxed{2}, then \boxed{}", "number:2"),
        (r"\boxed{\text{(C)}}", "choice:C"),
        (r"\boxed{\{1, 2\}}", r"text:\{1,2\}"),
        (r"<answer>so \boxed{5}</answer> and 6", "number:5"),
        ("<answer>1</answer><Answer> $1,500 </ANSWER>", "number:1500"),
        ("<answer>17", "number:17"),
        ("He has 5.\n#### 1,234", "number:1234"),
        ("#### Step 2: add\nThe sum is 12", "number:12"),
        ("The answer is 3. Wait. The final answer is: **72**.", "number:72"),
        ("The answer is 72. It is more than 48. Good.", "number:72"),
        ("The answer to the second question is 7 apples.", "number:7"),
        ("**Final Answer**\n\n72", "number:72"),
        ("Answer:\n\\[\n72\n\\]\nDone with 3.", "number:72"),
        ("Final answer: (b) because 4 is even", "choice:B"),
        ("Answer: C", "choice:C"),
        ("The answer is a dog.", "text:dog"),
        ("The answer is St. Petersburg. It is large.", "text:st. petersburg"),
        ('Answer: {"b": 2,\n "a": 1.0} as asked', 'json:{"a":1,"b":2}'),
        ('{"note": "the answer is 5", "answer": 6}', None),
        ('Here:\n```json\n{"a": [1]}\n```\nThat was step 7.', 'json:{"a":[1]}'),
        ("So 48 + 24 = 72.", "number:72"),
        ("We add.\nNatalia sold 1,072 clips altogether.", "number:1072"),
        ("So the right one is (B).", "choice:B"),
        ("The correct option is **B**.", "choice:B"),
        ("The answer is minus 5.", "number:-5"),
        ("No.", "text:no"),
        ("  42  ", "number:42"),
    ],
)
def test_the_final_answer_is_found(text: str, expected: str | None) -> None:
    expected = expected or 'json:{"answer":6,"note":"the answer is 5"}'
    assert key(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "...",
        "Answer:",
        "I do not know.",
        r"\boxed{12",
        r"The answer is \boxed{12",
        r"\boxed{}",
        "1,2345",
        "3:30",
        "3/4/2025",
        "5n",
        "1/0",
        "1e999999999",
        "2nd",
        "x",
        "option A or option B",
    ],
)
def test_no_clear_answer_abstains(text: str) -> None:
    assert canonical(text) is None


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("number", "<answer>They sold 30 and then 42</answer>", "number:42"),
        ("number", "<answer>many</answer> 5", None),
        ("number", "The answer is Paris", None),
        ("choice", "It is clearly option B since 4 > 3", "choice:B"),
        ("choice", "The answer is 4", None),
        ("choice", "b", "choice:B"),
        ("choice", "B) it is\nA bird sings", "choice:B"),
        ("json", 'Take {"a": 1} or rather {"a": {"b": 2}} now', 'json:{"a":{"b":2}}'),
        ("json", "Take {a: 1}", None),
        ("text", "Paris", "text:paris"),
        ("text", "The answer is 72.0", "text:72.0"),
    ],
)
def test_an_asked_kind_is_the_only_one(kind: AnswerKind, text: str, expected: str | None) -> None:
    assert key(text, kind) == expected


def test_span_is_where_the_answer_stands_also_in_a_long_text() -> None:
    text = "word " * 50_000 + r"so \boxed{ 1{,}234 }."
    answer = canonical(text)
    assert answer is not None
    assert answer.key == "number:1234"
    assert text[slice(*answer.span)] == answer.shown == "1{,}234"


PIECES = st.sampled_from(
    [
        "answer is ",
        "Answer: ",
        r"\boxed{",
        "}",
        "<answer>",
        "</answer>",
        "\n#### ",
        "{",
        '{"a": 1}',
        "72",
        "1,234",
        "3/4",
        "-",
        "$",
        "%",
        " km",
        "(B)",
        "B.",
        " ",
        "\n",
        ". ",
        "**",
        "Paris",
        "=",
        r"\frac{1}{2}",
        "½",
        "e5",
        "```",
        "[",
        "]",
        '"',
        "\u2009",
        ", ",
        " and ",
        "\\[",
        "$$",
        "a ",
    ]
)
KINDS = st.sampled_from(["auto", "number", "choice", "json", "text"])


@settings(max_examples=1500, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=40), KINDS)
def test_reading_what_was_shown_gives_the_same_answer(text: str, kind: AnswerKind) -> None:
    answer = canonical(text, kind)
    if answer is None:
        return
    assert text[slice(*answer.span)] == answer.shown
    assert kind in ("auto", answer.kind)
    again = canonical(answer.shown, answer.kind)
    assert again is not None
    assert (again.key, again.shown) == (answer.key, answer.shown)


JUNK = [
    "a", "1", "1,", "1 ", "1'", "1/", "1.", "-", "$", " ", "\n", "*", "{", "}", "[", "(", '{"a":',
    '{"',
    '{"a":1}', "\\boxed{", "\\boxed{}", "\\frac{", "\\frac{1}{", "\\text{", "<answer>", "</answer>",
    "<answer></answer>", "#### ", "\n#### a", "answer ", "answer:", "answer is\n", "answer to a ",
    "The answer to ", "final answer\n", "```", "```\n", "`", "(B)", "B. ", "½", "10^", "e9", "km ",
    "a. ", "\u2009", "1\u2009", "İ", "\\", "=", "about ", "\\[", "$$", "option ", "9e999999999 ",
]  # fmt: skip


def seconds(text: str, kind: AnswerKind) -> Iterator[float]:
    """This thread's time for up to three readings: one may pay for collecting others' garbage."""
    for _ in range(3):
        start = time.thread_time()
        canonical(text, kind)
        yield time.thread_time() - start


@pytest.mark.parametrize("kind", ["auto", "number", "choice", "json", "text"])
def test_a_hundred_kilobytes_of_junk_are_read_quickly(kind: AnswerKind) -> None:
    slow = []
    for piece in JUNK:
        body = piece * (100_000 // len(piece))
        for text in (body, body + "!", "Answer: " + body, "\\boxed{" + body[:60_000] + "}"):
            if not any(taken < 0.5 for taken in seconds(text, kind)):
                slow.append((piece, text[:9]))
    assert not slow


def test_every_gold_answer_of_gsm8k_is_extracted() -> None:
    root = os.environ.get("SATISFICE_DATA")
    path = Path(root or "", "gsm8k", "train_sample.jsonl")
    if not root or not path.is_file():
        pytest.skip("SATISFICE_DATA names no folder with gsm8k/train_sample.jsonl")
    wrong = []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        work, _, gold = row["answer"].rpartition("####")
        expected = f"number:{Fraction(gold.strip().replace(',', '').lstrip('$'))}"
        forms = [row["answer"], f"{work}So the answer is ${gold.strip()}.", f"\\boxed{{{gold}}}"]
        wrong += [(text, key(text)) for text in forms if key(text) != expected]
    assert len(rows) == 800
    assert not wrong
