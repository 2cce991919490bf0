"""A table of text, for a terminal, a page or a Markdown document; and a figure as its text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from rich.markup import escape as literal
from rich.table import Table


@dataclass(frozen=True)
class Grid:
    """Rows under a head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def beside(self, other: "Grid", shared: int) -> "Grid":
        """The same rows with the other's columns as well, but the first ones, which both share."""
        rows = [[*row, *more[shared:]] for row, more in zip(self.rows, other.rows, strict=True)]
        return Grid([*self.head, *other.head[shared:]], rows)

    def table(self) -> Table:
        """For a terminal."""
        found = Table(*map(literal, self.head))
        found.columns[0].overflow = "fold"
        for row in self.rows:
            found.add_row(*map(literal, row))
        return found

    def html(self) -> str:
        """For a page."""
        body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in self.rows)
        return f"<table><tr>{_cells('th', self.head)}</tr>{body}</table>"

    def markdown(self) -> str:
        """For a document."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        barred = ([cell.replace("|", r"\|") for cell in line] for line in lines)
        return "\n".join(f"| {' | '.join(line)} |" for line in barred)


def shown(value: float | None) -> str:
    """A figure with three digits that count."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{round(value, 9):.3g}"


def _cells(kind: str, texts: Iterable[str]) -> str:
    return "".join(f"<{kind}>{escape(text)}</{kind}>" for text in texts)
