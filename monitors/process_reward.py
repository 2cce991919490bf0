"""Process reward models: how right each step is, in this process or on an engine.

The value of a trace is its worst step's by default: a sum or a mean can be raised by adding good
looking steps (PURE, arXiv 2504.15275). Two forms of model are known:

`head`      labels on tokens, read at each step's end: its last token, or a separator put there
            (TRL's recipe; Qwen2.5-Math-PRM with `separator: <extra_0>`)
`verdict`   a causal model's next token at a tag put after each step: good or bad
            (Math-Shepherd, arXiv 2312.08935, with `separator: ки`, `after: "\\n"`)

It knows no strategy; what a step is, it is told or finds at blank lines.
"""

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from engines.base import Capability, Engine
from monitors.core.base import (
    Calibration,
    Message,
    Monitor,
    MonitorError,
    Score,
    Stage,
    UnreadableError,
)
from monitors.core.calibration import beside
from monitors.core.passes import Reading, Row, next_logprobs, token_logits
from monitors.core.registry import Parts
from monitors.core.sources import Source, SourceSpec, source

HERE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands where the steps come while the chat template is applied."""
ENDS = {"given": None, "line": re.compile(r"\n+"), "paragraph": re.compile(r"\n\s*\n\s*")}
Aggregate = Callable[[Sequence[float]], float]
AGGREGATES: Mapping[str, Aggregate] = {
    "minimum": min,
    "last": lambda values: values[-1],
    "mean": fmean,
}


class Spec(SourceSpec):
    """`{kind: process_reward, model: PATH}` or `{..., engine: ID}`, with the model's own form.

    The value is a probability. An engine for `head` is a pooling one, for `verdict` any other.
    """

    kind: Literal["process_reward"]
    form: Literal["head", "verdict"] = Field(
        "head", description="`head`: labels on tokens; `verdict`: a causal model's next token"
    )
    separator: str | None = Field(
        None,
        description="one token, put after each step in the place of its white space and read "
        "there; null: the step's last token",
    )
    after: str = Field("", description="text after each separator")
    label: int | None = Field(
        None, ge=0, description="`head`: index of the good label; null: the last one"
    )
    good: str = Field("+", description="`verdict`: the token that says the step is right")
    bad: str = Field("-", description="`verdict`: the token that says it is wrong")
    steps: Literal["given", "line", "paragraph"] = Field(
        "paragraph", description="where steps end, beside where those that are given do"
    )
    aggregate: Literal["minimum", "last", "mean"] = Field(
        "minimum", description="what the steps' scores come to"
    )
    chat_template: Path | None = Field(
        None, description="file with a chat template, where it is not the tokenizer's own"
    )

    @model_validator(mode="after")
    def _separated(self) -> Self:
        if self.form == "verdict" and self.separator is None:
            raise ValueError("separator: the form verdict needs one")
        return self


class ProcessReward(Monitor):
    """The probability that each step is right, and what they come to."""

    kind = "process_reward"
    unit = "probability"
    judges = "answer"
    floor, ceiling = 0.0, 1.0
    calibration = Calibration("probability", 0.5, 0.5, threshold=0.5, low=0.0, high=1.0)

    def __init__(self, name: str, spec: Spec, model: Source, tokens: list[int]) -> None:
        """`tokens` is filled with the ids of the good and the bad token, where they are read."""
        self.name = name
        if spec.model and (stored := beside(Path(spec.model), None)):
            self.calibration = stored
        self._spec, self._model, self._tokens = spec, model, tokens
        self._separator: list[int] = []
        self._template: str | None = None

    async def start(self) -> None:
        """Loads what it needs; raises MonitorError if it does not fit."""
        spec, model = self._spec, self._model
        await model.start()
        if spec.chat_template is not None:
            self._template = spec.chat_template.read_text("utf-8")
        elif not model.tokenizer.hf.chat_template:
            raise MonitorError(f"monitor {self.name!r}: its tokenizer has no chat template")
        if spec.separator is not None:
            self._separator = [self._token("separator", spec.separator)]
        if spec.form == "verdict":
            self._tokens[:] = [self._token("good", spec.good), self._token("bad", spec.bad)]
        [row] = await model.read(Reading([0], [0]))
        if spec.form == "head" and (spec.label or 0) >= len(row):
            raise MonitorError(f"monitor {self.name!r}: label: its model has {len(row)} labels")

    async def stop(self) -> None:
        """Frees the weights."""
        await self._model.stop()

    async def check(self) -> None:
        """Returns if its model can be read."""
        await self._model.check()

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        """The steps' probabilities and what they come to; `tokens` is what was read."""
        await self.check()
        reading = self._reading(conversation, split(steps, self._spec.steps))
        self._model.room(reading.ids)
        rows = await self._model.read(reading)
        found = tuple(probability(row, self._good) for row in rows)
        value = AGGREGATES[self._spec.aggregate](found)
        return Score(value, value, tokens=len(reading.ids), steps=found)

    @property
    def _good(self) -> int | None:
        return 0 if self._spec.form == "verdict" else self._spec.label

    def _token(self, field: str, text: str) -> int:
        """The one token that `text` is, after whatever a tokenizer puts before every text."""
        ids = self._model.tokenizer.encode(text, special=False)
        whole = self._model.tokenizer.decode(ids[-1:], skip_special=False).strip()
        if not ids or whole != text.strip():
            raise MonitorError(f"monitor {self.name!r}: {field}: {text!r} is no token of its model")
        return ids[-1]

    def _reading(self, conversation: Sequence[Message], steps: Sequence[str]) -> Reading:
        """The steps' ids, each encoded alone, so that no text can pass for a separator."""
        if not steps:
            raise UnreadableError(f"monitor {self.name!r} needs a step to judge")
        spoken = {"role": "assistant", "content": HERE}
        text = self._model.render([*conversation, spoken], self._template)
        before, here, after = text.rpartition(HERE)
        if not here:
            raise UnreadableError(f"monitor {self.name!r}: its template leaves the answer out")
        encode = self._model.tokenizer.encode
        ids, places = encode(before, special=False), []
        behind = encode(self._spec.after, special=False) if self._spec.after else []
        for step in steps:
            text = step.rstrip() if self._separator else step
            ids += [*encode(text, special=False), *self._separator]
            places.append(len(ids) - 1)
            ids += behind
        # What comes after the last step is read by nobody where attention looks back only.
        return Reading([*ids, *encode(after, special=False)], places)


def split(steps: Sequence[str], ends: str) -> list[str]:
    """The steps cut where `ends` says; each keeps the white space that ends it, none is blank."""
    pattern = ENDS[ends]
    pieces = [""]
    for step in steps:
        cuts = [found.end() for found in pattern.finditer(step)] if pattern else []
        for start, end in pairwise([0, *cuts, len(step)]):
            if pieces[-1].strip() and step[start:end].strip():
                pieces.append("")
            pieces[-1] += step[start:end]
    return [piece for piece in pieces if piece.strip()]


def probability(row: Row, good: int | None) -> float:
    """Of the good label: softmax over several logits, the logistic function of a single one."""
    if len(row) == 1:
        row, good = [0.0, row[0]], 1
    top = max(row)
    weights = [math.exp(logit - top) for logit in row]
    return weights[-1 if good is None else good] / sum(weights)


async def _labels(engine: Engine, reading: Reading) -> list[Row]:
    rows = await engine.classify(reading.ids, every=True)
    return [rows[place] for place in reading.places]


def make(name: str, spec: Spec, parts: Parts) -> ProcessReward:
    """The configured process reward."""
    tokens: list[int] = []

    def local(model: Any, batch: Sequence[Reading]) -> Sequence[list[Row]]:
        return next_logprobs(model, batch, tokens)

    async def verdicts(engine: Engine, reading: Reading) -> list[Row]:
        prefixes = [reading.ids[: place + 1] for place in reading.places]
        asked = (engine.next_logprobs(prefix, tokens=tokens) for prefix in prefixes)
        return [[found[t] for t in tokens] for found in await asyncio.gather(*asked)]

    head = spec.form == "head"
    model = source(
        name,
        spec,
        parts.engines,
        Capability.CLASSIFY if head else Capability.NEXT_LOGPROBS,
        ("AutoModelForTokenClassification", token_logits)
        if head
        else ("AutoModelForCausalLM", local),
        _labels if head else verdicts,
    )
    return ProcessReward(name, spec, model, tokens)
