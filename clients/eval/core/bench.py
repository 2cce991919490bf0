"""What a claim is given: a model to ask, how many questions, its options and a progress bar."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clients.eval.core import keeping
from clients.eval.core.asking import Arm, Asker, Item, Reply
from clients.eval.core.report import Report


@dataclass
class Bench:
    """One run of a claim. `n` None leaves the number of questions to the claim.

    With a folder to `keep` answers in, an arm that stands there already is not asked again.
    """

    asker: Asker
    console: Console
    n: int | None
    seed: int
    options: Mapping[str, str] = field(default_factory=dict)
    keep: Path | None = None

    async def ask(self, arm: Arm, questions: Sequence[Item], right: str = "right") -> list[Reply]:
        """All questions under one arm, with a bar while it lasts and a line at its end.

        `right` is what the line calls a right answer.
        """
        began = time.perf_counter()
        asked = keeping.Asked(self.asker.model, self.seed, arm, questions)
        replies = asked.kept(self.keep)
        if replies is None:
            with self.bar(arm.name, len(questions)) as advance:
                replies = await self.asker.ask(arm, questions, advance)
            asked.keep(self.keep, replies)
        share = f"{sum(reply.right for reply in replies)}/{len(replies)} {right}"
        seconds = time.perf_counter() - began
        self.console.print(f"  {arm.name}: {share}, {seconds:.0f} s", markup=False)
        if astray := [one.decoding for one in replies if one.decoding.get("outcome") == "degraded"]:
            told = f"  {len(astray)} answers are degraded: {astray[0].get('reason')}"
            self.console.print(told, style="red", markup=False)
        return replies

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """A progress bar; what it gives is called after each of `total`."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns, TimeRemainingColumn(), console=self.console, transient=True
        ) as progress:
            task = progress.add_task(escape(name), total=total)
            yield lambda: progress.advance(task)


class Claim(Protocol):
    """What a claim's file holds; `OPTIONS` are the names for --set, with defaults as text."""

    TITLE: str
    OPTIONS: Mapping[str, str]

    async def measure(self, bench: Bench) -> Report:
        """Asks what must be asked and says what was found."""

    def draw(self, report: Report, path: Path) -> None:
        """Writes the picture."""
