"""Guards that are chat models and say in one word whether a conversation is safe.

The prompt is the checkpoint's own chat template, the verdict the distribution of the one token that
follows; how both look is kept as a family in `monitors/families`. Source: Inan et al., Llama Guard,
arXiv 2312.06674, and the families' model cards. It knows neither strategies nor requests.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from engines.base import Capability, Engine
from monitors.core import families
from monitors.core.base import Message, Monitor, MonitorError, Score, Stage, UnreadableError
from monitors.core.calibration import beside
from monitors.core.families import Family
from monitors.core.passes import Reading, Row, next_logprobs
from monitors.core.registry import Parts
from monitors.core.sources import SourceSpec, source
from monitors.core.verdicts import Verdicts


class Spec(SourceSpec):
    """`{kind: generative_guard, family: NAME, engine: ID | model: PATH}`."""

    kind: Literal["generative_guard"]
    family: str = Field(description="how the guard is asked and answers, see monitors.md")
    template_args: dict[str, Any] = Field(
        default_factory=dict, description="variables of the guard's chat template"
    )
    before: str | None = Field(None, description="what it writes ahead of the verdict")
    safe: tuple[str, ...] | None = Field(None, min_length=1, description="spellings of safe")
    unsafe: tuple[str, ...] | None = Field(None, min_length=1, description="spellings of unsafe")
    unsure_is: Literal["unsafe", "safe"] = Field(
        "unsafe", description="what a third verdict counts as, where the family has one"
    )
    min_mass: float = Field(
        0.01, gt=0, lt=1, description="less probability on all verdicts together is no answer"
    )

    @field_validator("family")
    @classmethod
    def _known(cls, name: str) -> str:
        families.family(name)
        return name

    @model_validator(mode="after")
    def _whole(self) -> Self:
        family = families.family(self.family)
        if missing := [one for one in family.required if one not in self.template_args]:
            raise ValueError(f"the family {self.family} needs template_args: {', '.join(missing)}")
        return self

    def shaped(self) -> Family:
        """The family with what was configured otherwise."""
        family = families.family(self.family)
        own = {name: getattr(self, name) for name in ("before", "safe", "unsafe")}
        changed = {name: value for name, value in own.items() if value is not None}
        arguments = {**family.arguments, **self.template_args}
        return family.model_copy(update={**changed, "arguments": arguments})


class GenerativeGuard(Monitor):
    """p(safe) - p(unsafe) over the verdict's first token, as shares of both: from -1 to 1.

    `raw` is log p(safe) - log p(unsafe), which does not saturate. A conversation longer than the
    guard's context is an error, never cut.
    """

    kind = "generative_guard"
    unit = "margin"
    judges = "safety"
    floor, ceiling = -1.0, 1.0

    def __init__(self, name: str, spec: Spec, parts: Parts) -> None:
        """Raises ValueError for an engine that is not there or cannot do it."""
        self.name = name
        self._spec = spec
        self._verdicts: Verdicts | None = None
        local = ("AutoModelForCausalLM", self._pass)
        needs = Capability.NEXT_LOGPROBS
        self._source = source(name, spec, parts.engines, needs, local, self._ask)
        self.calibration = beside(Path(spec.model), None) if spec.model else None

    async def start(self) -> None:
        """Loads the model, if it is no engine's, and reads its template and verdicts."""
        await self._source.start()
        try:
            shape = self._spec.shaped()
            self._verdicts = Verdicts(self._source.tokenizer, shape, self._spec.unsure_is)
        except ValueError as fault:
            raise MonitorError(f"guard {self.name!r} could not be started: {fault}") from fault

    async def stop(self) -> None:
        """Frees the model, if it is no engine's."""
        self._verdicts = None
        await self._source.stop()

    async def check(self) -> None:
        """Raises MonitorError before `start` and after `stop`, else what the engine raises."""
        self._asked()
        await self._source.check()

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        """The margin; `tokens` are those of the prompt and the one of the verdict."""
        verdicts = self._asked()
        prompt = verdicts.prompt(conversation, steps)
        self._source.room([*prompt, 0])  # and the verdict
        [row] = await self._source.read(Reading(prompt, [len(prompt) - 1]))
        found = verdicts.weighed(row)
        # Written so that NaN fails too. Texts can be written that bring this about.
        if not found.mass >= self._spec.min_mass:
            raise UnreadableError(
                f"guard {self.name!r} gave no verdict: its words have {found.mass:.2g} of the mass"
            )
        label = "safe" if found.margin >= 0 else "unsafe"
        return Score(found.margin, found.safe - found.unsafe, label, len(prompt) + 1)

    def _asked(self) -> Verdicts:
        if self._verdicts is None:
            raise MonitorError(f"guard {self.name!r} is not loaded")
        return self._verdicts

    def _pass(self, model: Any, batch: Sequence[Reading]) -> list[list[Row]]:
        return next_logprobs(model, batch, self._asked().tokens)

    async def _ask(self, engine: Engine, reading: Reading) -> list[Row]:
        """One request of one token; what the engine's prefix cache holds is not read again."""
        tokens = self._asked().tokens
        found = await engine.next_logprobs(reading.ids, tokens=tokens)
        return [[found[token] for token in tokens]]


def make(name: str, spec: Spec, parts: Parts) -> GenerativeGuard:
    """The configured guard."""
    return GenerativeGuard(name, spec, parts)
