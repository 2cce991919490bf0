"""Reward models of Hugging Face's sequence-classification form, in this process or on an engine.

In process for those small enough not to need an engine. The value is the raw logit. Knows no
strategy; it sees messages and text only, and applies the reward model's own chat template to them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from engines.base import Capability, Engine
from monitors.core.base import Message, Monitor, MonitorError, Score, Stage
from monitors.core.calibration import beside
from monitors.core.passes import Reading, Row, sequence_logits
from monitors.core.registry import Parts
from monitors.core.sources import Source, SourceSpec, source

CLOSE = "</think>"
LOADER = "AutoModelForSequenceClassification"


class Spec(SourceSpec):
    """`{kind: sequence_reward, model: PATH}` or, on a pooling engine, `{..., engine: ID}`."""

    kind: Literal["sequence_reward"]


class SequenceReward(Monitor):
    """A regression head's logit for a whole conversation.

    In process it is computed in float32, and concurrent calls share forward passes, padded so that
    each gets what it would get alone (to 1e-5). A text longer than the model's context is an
    error, never cut.
    """

    kind = "sequence_reward"
    unit = "logit"
    judges = "answer"

    def __init__(self, name: str, spec: Spec, model: Source) -> None:
        self.name = name
        self.calibration = beside(Path(spec.model), None) if spec.model else None
        self._model = model

    async def start(self) -> None:
        """Loads what it needs; raises MonitorError if it does not fit."""
        await self._model.start()
        if not self._model.tokenizer.hf.chat_template:
            raise MonitorError(f"monitor {self.name!r}: its tokenizer has no chat template")
        [labels] = await self._model.read(Reading([0], [0]))
        if len(labels) != 1:
            raise MonitorError(f"monitor {self.name!r}: {len(labels)} labels; a reward has one")

    async def stop(self) -> None:
        """Frees the weights."""
        await self._model.stop()

    async def check(self) -> None:
        """Returns if its model can be read."""
        await self._model.check()

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        """The logit; `tokens` is the length of the templated conversation."""
        await self.check()
        ids = self._model.encode([*conversation, *([spoken(steps, stage)] if steps else [])])
        self._model.room(ids)
        [[logit]] = await self._model.read(Reading(ids, [len(ids) - 1]))
        return Score(logit, logit, tokens=len(ids))


def spoken(steps: Sequence[str], stage: Stage) -> Message:
    """The assistant's message; thinking goes where templates look for it.

    A text with think markers is split at the closing one. A template that knows no thinking
    leaves it out; one cut before its end is scored as it stands.
    """
    thinking, answer = "", "".join(steps)
    if stage is Stage.ANSWER and len(steps) > 1:
        thinking, answer = "".join(steps[:-1]), steps[-1]
    if CLOSE in answer:
        before, _, answer = answer.rpartition(CLOSE)
        thinking += before
    thinking = thinking.replace(CLOSE, "").split("<think>")[-1].strip("\n")
    message = {"role": "assistant", "content": answer.lstrip("\n")}
    return message | ({"reasoning_content": thinking} if thinking else {})


def _forward(model: Any, batch: Sequence[Reading]) -> list[list[Row]]:
    return [[row] for row in sequence_logits(model, [reading.ids for reading in batch])]


async def _ask(engine: Engine, reading: Reading) -> list[Row]:
    return await engine.classify(reading.ids)


def make(name: str, spec: Spec, parts: Parts) -> SequenceReward:
    """The configured reward."""
    model = source(name, spec, parts.engines, Capability.CLASSIFY, (LOADER, _forward), _ask)
    return SequenceReward(name, spec, model)
