"""Lines are those of the file, and no text whatever makes the check raise."""

from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from server.settings import marks
from server.settings.marks import Marked
from server.settings.page import SECTIONS
from server.settings.reading import examined
from server.settings.spec import Settings

NAMES = sorted({name for _, model in SECTIONS for name in model.model_fields} | {"a", "b@c", ""})
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.floats(),
    st.sampled_from(["table", "plain", "a", "builtin:x", "./x", "", "block", "0" * 64]),
    st.dates(),
)
KEYS = st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(0, 3), st.none())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
SHAPED = st.dictionaries(
    st.sampled_from(list(Settings.model_fields)), st.one_of(VALUES, st.dictionaries(KEYS, VALUES))
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(SHAPED, VALUES))
def test_any_document_is_examined_without_raising(value: object) -> None:
    marked = marks.read(yaml.safe_dump(value))
    found, faults = examined(marked, Path.cwd())
    assert found is not None or faults
    for fault in faults:
        assert fault.message


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(alphabet="ab:{}[]-&*!|>'\"#%@ \n\t0<,", max_size=40))
def test_any_text_is_read_without_raising(text: str) -> None:
    marked = marks.read(text)
    assert isinstance(marked, Marked)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_values_are_those_of_plain_yaml(value: object) -> None:
    text = yaml.safe_dump(value)
    marked = marks.read(text)
    if not marked.faults:
        assert repr(marked.value) == repr(yaml.safe_load(text))


def test_every_key_has_its_line() -> None:
    text = "a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n\ne: &k {f: 3}\ng: *k\n"
    marked = marks.read(text)
    lines = {marks.spelled(place): line for place, line in marked.lines.items() if place}
    assert lines == {
        "a": 1, "a.b": 2, "a.c": 3, "a.c[0]": 4, "a.c[1]": 5, "a.c[1].d": 5,
        "e": 7, "e.f": 7, "g": 8, "g.f": 7,
    }  # fmt: skip
    assert marked.line(("a", "c", 1, "nothing", "here")) == 5
