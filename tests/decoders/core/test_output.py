"""Text from commits: markers, stop strings, stop tokens, characters in pieces."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.core.base import Channel, Commit, Think
from decoders.core.output import StopStrings, Transcript, read
from decoders.core.think import Splitter, is_thinking
from engines.base import Finish
from tests.fakes.requests import request, table, think

ENGINE = table()
TOKENIZER = ENGINE.tokenizer


def told(text: str, *, size: int = 1, finish: Finish = Finish.STOP, **fields: Any) -> Transcript:
    """A transcript of a text committed `size` tokens at a time."""
    transcript = Transcript(request(ENGINE, **{"max_tokens": 1000, **fields}))
    ids = TOKENIZER.encode(text + ("<|end|>" if finish is Finish.STOP else ""), special=False)
    transcript.reading = ["", ""]  # type: ignore[attr-defined]
    for at in range(0, len(ids), size):
        end = finish if at + size >= len(ids) else None
        _fold(transcript, transcript.add(Commit(ids[at : at + size], finish=end)))
        if transcript.stop is not None:
            return transcript
    _fold(transcript, transcript.end())
    return transcript


def _fold(transcript: Transcript, piece: object) -> None:
    parts = transcript.reading  # type: ignore[attr-defined]
    parts[0] += piece.reasoning  # type: ignore[attr-defined]
    parts[1] += piece.content  # type: ignore[attr-defined]


def texts(transcript: Transcript) -> list[str]:
    return transcript.reading  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_reasoning_is_split_from_content(size: int) -> None:
    assert texts(told("<think>\na b</think>\n\n42", size=size)) == ["a b", "42"]


def test_without_a_marker_all_is_content() -> None:
    assert texts(told("42 <think>x</think>")) == ["", "42 <think>x</think>"]


def test_a_prompt_may_have_opened_the_thinking() -> None:
    assert texts(told("a</think>b", think_open=True)) == ["a", "b"]


def test_completions_are_not_split() -> None:
    assert texts(told("<think>a</think> b", chat=False)) == ["", "<think>a</think> b"]


@given(st.text(max_size=40).filter(lambda text: "<|" not in text), st.integers(1, 4))
def test_every_text_comes_through_whole(text: str, size: int) -> None:
    text = text.encode("utf-8", "ignore").decode()
    assert texts(told(text, size=size, chat=False)) == ["", text]


@pytest.mark.parametrize("size", [1, 3, 50])
def test_stop_string_in_content_only(size: int) -> None:
    result = told("<think>STOP</think>one STOP two", size=size, stop=("STOP",))
    assert texts(result) == ["STOP", "one "]
    assert result.stop == "STOP"


def test_stop_string_may_be_included_and_counts_its_tokens() -> None:
    result = told("one STOP two", stop=("STOP",), include_stop=True)
    assert texts(result) == ["", "one STOP"]
    assert result.committed == len("one STOP")


def test_the_earliest_complete_stop_string_wins() -> None:
    assert texts(told("abcd", stop=("bcd", "c"))) == ["", "ab"]


def test_held_back_text_comes_out_at_the_end() -> None:
    assert texts(told("one STO", stop=("STOP",))) == ["", "one STO"]


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_stop_strings_do_not_depend_on_the_pieces(text: str, stops: list[str]) -> None:
    one = StopStrings(stops, False)
    out = ""
    for letter in text:
        out += one.feed(letter)
        if one.found is not None:
            break
    else:
        out += one.flush()
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert out == text
        return
    assert one.found is not None
    assert (out + one.found) == text[: min(ends)]


def test_a_marker_of_several_tokens_is_found_and_near_misses_are_kept() -> None:
    markers = Think("<<", ">>!", (1, 2), (3, 3, 4))
    stream = [1, 2, 9, 3, 3, 3, 4, 8]
    splitter = Splitter(markers, False)
    out = [(t, c) for token in stream for t, c in splitter.feed(token)]
    assert out == [(9, Channel.REASONING), (3, Channel.REASONING), (8, Channel.CONTENT)]


def test_is_thinking() -> None:
    markers = think(TOKENIZER)
    ids = TOKENIZER.encode("<think>a</think>b", special=False)
    assert [is_thinking(markers, False, ids[:n]) for n in (0, 1, 2, 3)] == [
        False,
        True,
        True,
        False,
    ]
    assert is_thinking(markers, True, ())


def test_read_is_the_fold_of_the_stream() -> None:
    ids = TOKENIZER.encode("<think>a b</think>\n42<|end|>", special=False)
    reading = read(TOKENIZER, think(TOKENIZER), False, ids)
    assert (reading.reasoning, reading.content) == ("a b", "42")


@given(st.lists(st.integers(1, 3), max_size=12), st.booleans())
def test_tokens_that_stand_are_followed_as_they_are_fed(tokens: list[int], opened: bool) -> None:
    for markers in (Think("", "", (1,), (2,)), Think("", "", (1, 2), (1, 1, 2)), None):
        fed, followed = Splitter(markers, opened), Splitter(markers, opened)
        for token in tokens:
            list(fed.feed(token))
        followed.follow(tokens)
        rest = [list(one.feed(t)) for one in (fed, followed) for t in (1, 1, 2, 3)]
        assert rest[:4] == rest[4:]
        assert (fed.channel, fed.held) == (followed.channel, followed.held)
