"""What a run of a claim says about the answers that it got."""

import io

from rich.console import Console

from clients.eval.core.asking import Arm, Item, Reply
from clients.eval.core.bench import Bench
from clients.eval.core.questions import Question
from tests.fakes.asker import ScriptedAsker


class Failing(ScriptedAsker):
    """Every third answer came about without what was asked for."""

    def _reply(self, arm: Arm, question: Item) -> Reply:
        astray = {"outcome": "degraded", "reason": "a guard was down"}
        decoding = astray if question.id in "036" else {"outcome": "completed"}
        return Reply(question, "1", True, 0, {}, decoding, 0.1)


async def test_degraded_answers_are_told() -> None:
    shown = io.StringIO()
    bench = Bench(Failing(), Console(file=shown, width=200), 7, 0)
    questions = [Question(str(number), "", 1, "?", "1") for number in range(7)]
    assert len(await bench.ask(Arm("arm", {}, {}), questions)) == 7
    assert "arm: 7/7 right" in shown.getvalue()
    assert "3 answers are degraded: a guard was down" in shown.getvalue()
