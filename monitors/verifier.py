"""Verifiers that need no model: is the answer what it should be?

The value is 1.0 or 0.0. A request may bring its own check, so checks do bounded work. The
canonical form in which answers are compared is given from outside; nothing here knows models.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, assert_never

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from monitors.core.base import Calibration, Message, Monitor, Score, Stage, UnreadableError
from monitors.core.bounded import TooCostlyError, check_pattern, check_schema, fits, found
from monitors.core.registry import MonitorSpec, Parts, Same, plainly_same


class _Check(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


class Exact(_Check):
    """The answer says what was expected, in canonical form."""

    kind: Literal["exact"]
    answer: str = Field(min_length=1, max_length=65_536, description="the expected answer")


class Regex(_Check):
    """The pattern (the `regex` package's dialect) occurs in the answer."""

    kind: Literal["regex"]
    pattern: Annotated[str, AfterValidator(check_pattern)] = Field(
        max_length=1000, description="searched anywhere in the answer; use ^ and $ to anchor it"
    )


class JsonSchema(_Check):
    """The answer is JSON, and nothing else, that fits the schema (2020-12, local $ref only)."""

    kind: Literal["json_schema"]
    wanted: Annotated[dict[str, Any] | bool, AfterValidator(check_schema)] = Field(
        alias="schema", description="a JSON Schema"
    )


VerifierSpec = Annotated[Exact | Regex | JsonSchema, Field(discriminator="kind")]


class Spec(MonitorSpec):
    """A configured verifier: `{kind: verifier, check: {kind: regex, pattern: ...}}`."""

    kind: Literal["verifier"]
    check: VerifierSpec


class Verifier(Monitor):
    """Checks the last step of an answer; earlier steps and the conversation are not read."""

    kind = "verifier"
    unit = "pass"
    floor, ceiling = 0.0, 1.0
    calibration = Calibration(unit="pass", mean=0.5, std=0.5, threshold=1.0, low=0.0, high=1.0)

    def __init__(self, name: str, passes: Callable[[str], bool]) -> None:
        """`passes` says whether an answer's text is right; it runs in a thread."""
        self.name = name
        self._passes = passes

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        """1.0 with label "pass" or 0.0 with label "fail"; raises UnreadableError if too costly."""
        try:
            passed = await asyncio.to_thread(self._passes, steps[-1] if steps else "")
        except TooCostlyError as cost:
            raise UnreadableError(f"verifier {self.name!r}: {cost}") from cost
        return Score(float(passed), float(passed), "pass" if passed else "fail")


def from_spec(spec: VerifierSpec, same: Same = plainly_same, name: str = "") -> Verifier:
    """The verifier of an inline check; `same` compares (answer's text, expected answer)."""
    return Verifier(name or spec.kind, _passes(spec, same))


def _passes(spec: VerifierSpec, same: Same) -> Callable[[str], bool]:
    match spec:
        case Exact():
            return lambda text: same(text, spec.answer)
        case Regex():
            return lambda text: found(spec.pattern, text)
        case JsonSchema():
            return lambda text: fits(spec.wanted, text)
    assert_never(spec)


def make(name: str, spec: Spec, parts: Parts) -> Verifier:
    """The configured verifier."""
    return from_spec(spec.check, parts.same, name)
