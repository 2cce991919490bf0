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

    `index` counts accepted steps that show something, `score` is the last one's. `phrase` stands
    before the next step and belongs to its text.
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
        answer = self.answer + text
        return [*self.thinking, *_between(self.thinking, answer), answer]

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


def _between(thinking: Sequence[str], answer: str) -> list[str]:
    """What stands for the marker where nothing else keeps two words apart: read as one they hide.

    Nothing where there is white space, which monitors are given as it is.
    """
    last = next((text for text in reversed(thinking) if text), "\n")
    return [] if last[-1].isspace() or answer[:1].isspace() else ["\n"]
