"""What of an answer stands so far, as monitors read it: the texts of its steps, and where they lie.

It does not know who decides what stands.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from decoders.core.steps import Step
from engines.base import Finish
from monitors.core.base import Stage


@dataclass(slots=True)
class Trail:
    """Accepted tokens, and their texts by stage: thinking step by step, the answer as one.

    `index` counts accepted steps that show something, `score` is the last one's. `steered` is a
    phrase that stands before the next step and belongs to its text.
    """

    tokens: list[int] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    answer: str = ""
    index: int = 0
    score: float | None = None
    phrase: str = ""
    finish: Finish | None = None

    def ahead(self) -> Self:
        """A copy, for reading on as if all that comes were accepted."""
        return replace(self, tokens=list(self.tokens), thinking=list(self.thinking))

    def texts(self, step: Step) -> list[str]:
        """What a monitor reads to judge `step`: all that stands, and the step."""
        text = self.phrase + step.text
        if step.stage is Stage.THINKING:
            return [*self.thinking, text]
        return [*self.thinking, self.answer + text]

    def span(self, step: Step) -> tuple[int, int]:
        """Where the step lies in the text of its channel, in characters; blanks before it all."""
        thinking = step.stage is Stage.THINKING
        before = ("".join(self.thinking) if thinking else self.answer) + self.phrase
        return len(before.lstrip()), len((before + step.text).lstrip())

    def force(self, tokens: Sequence[int], text: str) -> None:
        """A phrase stands; the next step goes on from it."""
        self.tokens += tokens
        self.phrase += text

    def add(self, step: Step, score: float | None) -> None:
        """The step stands."""
        text, self.phrase = self.phrase + step.text, ""
        self.tokens += step.tokens
        self.finish = step.finish
        if step.stage is Stage.THINKING:
            self.thinking.append(text)
        else:
            self.answer += text
        if not step.blank:
            self.index += 1
            self.score = score
