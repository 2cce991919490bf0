"""docs/strategies.md says what the code says."""

from pathlib import Path

from decoders.core.pages import every
from decoders.core.registry import names

PAGE = Path(__file__).resolve().parents[3] / "docs" / "strategies.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == every(), "run scripts/docs"


def test_every_strategy_has_its_part() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"## `{name}`" in text for name in names())
