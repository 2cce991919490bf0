"""Where steps are cut: by the tokens alone, at token positions, markers kept apart."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.core.steps import Boundary, Cutter, Rules, Step
from engines.base import Delta, Finish
from engines.table import byte_tokenizer
from monitors.core.base import Stage
from tests.fakes.requests import think

TOKENIZER = byte_tokenizer()
THINK = think(TOKENIZER)
USUAL: tuple[Boundary, ...] = ("paragraph", "heading")


def cut(
    text: str, boundaries: Sequence[Boundary] = USUAL, most: int = 1000, *, chunk: int = 1,
    opened: bool = False, finish: Finish = Finish.LENGTH,
) -> list[Step]:  # fmt: skip
    """The steps of `text`, fed `chunk` tokens at a time."""
    cutter = Cutter(TOKENIZER, THINK, opened, Rules(frozenset(boundaries), most))
    ids = TOKENIZER.encode(text, special=False)
    found: list[Step] = []
    for at in range(0, len(ids), chunk):
        last = at + chunk >= len(ids)
        delta = Delta(ids[at : at + chunk], finish=finish if last else None)
        found += cutter.feed(delta)
    return found


def texts(steps: Sequence[Step]) -> list[str]:
    return [step.text for step in steps]


@pytest.mark.parametrize(
    ("text", "boundaries", "expected"),
    [
        ("a\n\nb\n\nc", USUAL, ["a\n\n", "b\n\n", "c"]),
        ("a\n \t\nb", USUAL, ["a\n \t\n", "b"]),
        ("\n\n  a\n\n\n\nb", USUAL, ["\n\n  a\n\n", "\n\nb"]),
        ("a\nb", USUAL, ["a\nb"]),
        ("a\nb\nc", ("line",), ["a\n", "b\n", "c"]),
        ("a\n\nb", ("heading",), ["a\n\nb"]),
        ("so\nStep 1: a\nStep 2: b", USUAL, ["so\n", "Step 1: a\n", "Step 2: b"]),
        ("so\n1. a\n2) b", USUAL, ["so\n", "1. a\n", "2) b"]),
        ("so\n## A\ntext\n**Step 2** b", USUAL, ["so\n", "## A\ntext\n", "**Step 2** b"]),
        ("so\n1.5 is more\n12 apples", USUAL, ["so\n1.5 is more\n12 apples"]),
        ("so\n\nStep 1: a", USUAL, ["so\n\n", "Step 1: a"]),
        ("Step 1: a", USUAL, ["Step 1: a"]),
        ("stepping\nsteps 2", USUAL, ["stepping\nsteps 2"]),
    ],
)
def test_boundaries(text: str, boundaries: Sequence[Boundary], expected: list[str]) -> None:
    assert texts(cut(text, boundaries)) == expected


def test_a_heading_cuts_before_the_token_that_holds_it() -> None:
    rules = Rules(frozenset({"heading"}), 1000)
    assert rules.whole(["so", ".", "\nStep", " 1"]) == 2
    assert rules.whole(["so", ".", "\n", "Step", " 1"]) == 3
    assert rules.whole(["so\nStep", " 1"]) == 0  # the token cannot be cut


def test_a_heading_that_cannot_be_cut_hides_no_later_one() -> None:
    rules, pieces = Rules(frozenset({"heading"}), 1000), ["so\n# A", " and more", "\n", "#", " C"]
    assert rules.whole(pieces, searched=len("".join(pieces[:-1]))) == 3


def test_a_long_step_is_not_searched_anew_at_each_token() -> None:
    """Whoever asks chooses how long a step may be, and everybody waits while it is searched."""
    began = time.perf_counter()
    steps = cut("\n" + "a b" * 1365 + "\n\nb", ("paragraph", "heading", "line"), most=4096)
    assert len(steps) == 2
    assert time.perf_counter() - began < 3


def test_markers_belong_to_no_text_and_end_thinking() -> None:
    steps = cut("<think>\nplan\n\nmore\n</think>\n\nyes", finish=Finish.STOP)
    assert texts(steps) == ["", "\nplan\n\n", "more\n", "\n\nyes"]
    assert [step.stage for step in steps[1:]] == [Stage.THINKING, Stage.THINKING, Stage.ANSWER]
    assert [step.closing for step in steps] == [False, False, True, False]
    assert [step.finish for step in steps] == [None, None, None, Finish.STOP]
    assert steps[0].tokens == THINK.open_ids
    assert steps[2].tokens[-1:] == THINK.close_ids


def test_a_cap_cuts_whatever_stands() -> None:
    steps = cut("abcdefg", most=3)
    assert texts(steps) == ["abc", "def", "g"]


def test_an_empty_delta_ends_the_answer() -> None:
    cutter = Cutter(TOKENIZER, None, False, Rules(frozenset(), 10))
    (step,) = cutter.feed(Delta((), finish=Finish.LENGTH))
    assert step.tokens == ()
    assert step.blank
    assert step.finish is Finish.LENGTH


TEXTS = st.lists(
    st.sampled_from(["a", "\n", "\n\n", "Step 1", "2. ", "# x", " ", "é", "<think>", "</think>"]),
    min_size=1, max_size=25,
).map("".join)  # fmt: skip


@given(TEXTS, st.integers(1, 9), st.integers(1, 12), st.booleans())
def test_cuts_depend_on_the_tokens_alone(text: str, chunk: int, most: int, opened: bool) -> None:
    slow = cut(text, (*USUAL, "line"), most, opened=opened)
    assert cut(text, (*USUAL, "line"), most, chunk=chunk, opened=opened) == slow
    tokens = [token for step in slow for token in step.tokens]
    assert tokens == TOKENIZER.encode(text, special=False)
    marks = len(THINK.close_ids)
    assert all(len(step.tokens) <= most + marks for step in slow[:-1])
    assert all(step.finish is None for step in slow[:-1])


@given(TEXTS, st.booleans())
def test_a_cutter_begun_at_a_cut_goes_on_as_the_first_one(text: str, opened: bool) -> None:
    """What lets a run restart behind any accepted step."""
    from decoders.core.think import is_thinking

    whole = cut(text, opened=opened)
    for count in range(1, len(whole)):
        done = [token for step in whole[:count] for token in step.tokens]
        rest = [token for step in whole[count:] for token in step.tokens]
        inside = is_thinking(THINK, opened, done)
        rules = Rules(frozenset(USUAL), 1000)
        cutter = Cutter(TOKENIZER, THINK if inside else None, inside, rules)
        again = list(cutter.feed(Delta(rest, finish=Finish.LENGTH)))
        assert [step.tokens for step in again] == [step.tokens for step in whole[count:]]
