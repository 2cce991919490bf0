"""An asker of evaluations without a server: a script answers, and it keeps what was asked."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

from clients.eval.core.asking import Arm, Asker, Item, Reply


class ScriptedAsker(Asker):
    """Answers with `_reply`; `arms` are those that were asked, beside another model too."""

    def __init__(self) -> None:
        self.model = "scripted"
        self.arms: list[Arm] = []

    async def ask(
        self, arm: Arm, questions: Sequence[Item], told: Callable[[], None]
    ) -> list[Reply]:
        self.arms.append(arm)
        return [self._reply(arm, question) for question in questions]

    @abstractmethod
    def _reply(self, arm: Arm, question: Item) -> Reply: ...
