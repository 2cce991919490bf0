"""What the comparison with the published loop asks and what it makes of it."""

import io

import pytest
from rich.console import Console

from benchmarks import diffusion
from clients.eval.core.asking import Arm, Asker
from clients.eval.core.ballots import Puzzle

PUZZLES = [Puzzle(str(at), "t", 1, "?", "x") for at in range(50)]


def test_rounds_go_through_the_puzzles_and_begin_again() -> None:
    assert [one.id for one in diffusion.of_round(PUZZLES, 2, 20)] == [
        *(str(at) for at in range(40, 50)), *(str(at) for at in range(10)),
    ]  # fmt: skip


async def test_paths_a_second_have_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    async def answered(
        asker: Asker, arm: Arm, puzzles: list[Puzzle], clients: int
    ) -> tuple[float, float]:
        order.append(arm.name)
        return float(clients * (1 + (len(order) - 1) // 4)), 1.0

    monkeypatch.setattr(diffusion, "answered", answered)
    monkeypatch.setattr(diffusion, "CLIENTS", (1, 4))
    rows = await diffusion.scaled(Asker("http://nowhere", "m", 0), PUZZLES, 6)
    assert order[:8] == ["exact", "cheap"] * 2 + ["cheap", "exact"] * 2
    assert [row["clients"] for row in rows] == [1, 4]
    assert rows[0]["exact"] == {"value": 3.5, "low": 1, "high": 6, "n": 6}
    assert (rows[1]["cheap"]["low"], rows[1]["cheap"]["high"]) == (4, 24)
    shown = io.StringIO()
    diffusion.show([], rows, Console(file=shown, width=100))
    assert "3.50 [1.00, 6.00]" in shown.getvalue() and "14.00 [4.00, 24.00]" in shown.getvalue()
