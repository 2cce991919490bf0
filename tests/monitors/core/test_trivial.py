"""Which answers say nothing."""

import pytest

from monitors.core.trivial import NULL_ANSWERS, is_trivial


@pytest.mark.parametrize(
    "text",
    [
        *NULL_ANSWERS, "\n\t ", "...", "—", "**Solution:**", "# Answer", "thought process",
        "Let’s think step by step:", "Let's solve this step by step", "解：", "\u200b", "Step 1:",
    ],
)  # fmt: skip
def test_nothing_is_said(text: str) -> None:
    assert is_trivial(text)


@pytest.mark.parametrize(
    "text", ["4", "+", "∞", "x", "Solution: 4", "Yes.", "No", "The answer is 7.", "∅", "🙂", "a:"]
)
def test_something_is_said(text: str) -> None:
    assert not is_trivial(text)
