"""docs/configuration.md names every key there is, and is what the code says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from server.settings import kinds
from server.settings.page import SECTIONS, document, rows
from server.settings.spec import Section, Settings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


def within(annotation: Any) -> Iterator[type[Section]]:
    """The sections in an annotation, and those in them."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
        for field in annotation.model_fields.values():
            yield from within(field.annotation)
    for argument in get_args(annotation):
        yield from within(argument)


def test_the_page_is_made_from_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), "run scripts/docs"


def test_every_section_is_on_the_page() -> None:
    assert {model for _, model in SECTIONS} == set(within(Settings))


def test_every_key_says_what_it_means() -> None:
    for _, model in SECTIONS:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_every_kind_is_on_the_page() -> None:
    text = document()
    for kind in (*kinds.engine_kinds(), *kinds.monitor_kinds()):
        assert f"### `{kind}`" in text


def test_a_row_has_type_default_and_meaning() -> None:
    shown = dict(SECTIONS)
    port = next(row for row in rows(shown["server"]) if "`port`" in row)
    assert (
        port
        == "| `port` | integer ≥ 0, ≤ 65535 | `8000` | Port to listen on; 0 takes a free one. |"
    )
