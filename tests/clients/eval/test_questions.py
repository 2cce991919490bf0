"""Stored questions and the grading of answers."""

from collections import Counter
from pathlib import Path

import pytest

from clients.eval.core.questions import FOLDER, is_right, load


@pytest.mark.parametrize(
    ("content", "expected", "right"),
    [
        ("The answer is 664.", "664", True),
        ("The answer is 1,664.", "1664", True),
        ("12 + 3 = 15, so -15", "-15", True),
        ("The answer is 664.0", "664", True),
        ("The answer is 6640.", "664", False),
        ("664 is not it; 12", "664", False),
        ("no number", "664", False),
        ("", "664", False),
    ],
)
def test_the_last_number_counts(content: str, expected: str, right: bool) -> None:
    assert is_right(content, expected) is right


def test_the_stored_questions_suit_the_claims() -> None:
    questions = load(FOLDER / "test.jsonl", 600)
    assert len({question.id for question in questions}) == 600
    assert len(Counter(question.template for question in questions)) >= 20
    assert all(is_right(question.answer, question.answer) for question in questions)


def test_too_few_questions_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    row = '{"id": "1", "template": "t", "level": 1, "prompt": "1+1", "answer": "2"}\n'
    path.write_text(row)
    assert load(path)[0].answer == "2"
    with pytest.raises(ValueError, match="has 1 questions; 2"):
        load(path, 2)
