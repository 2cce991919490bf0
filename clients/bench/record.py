"""One request as its client saw it: when text came, what it cost, whether it was right.

Knows no server and no load; times are seconds after the request was sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Record:
    """A finished, failed or cancelled request.

    `sent` is seconds after its point of the sweep began, `took` its whole duration. `reasoning` and
    `content` have the arrival of each chunk that carried such text, `events` that of each progress
    event. `status` is HTTP's, 0 without an answer; `error` None means a complete answer. `right`
    and `predicted` (a dry run's expected tokens) are None where nothing is known.
    """

    index: int
    prompt: str
    sent: float
    took: float
    reasoning: Sequence[float] = ()
    content: Sequence[float] = ()
    events: Sequence[tuple[float, str]] = ()
    usage: Mapping[str, Any] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)
    finish: str = ""
    status: int = 0
    error: str | None = None
    text: str = ""
    right: bool | None = None
    predicted: float | None = None
    round: int = 0
    retry_after: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the whole answer came."""
        return self.error is None

    @property
    def refused(self) -> bool:
        """Whether the answer was withheld: a monitor said no, or could not say anything."""
        return self.decoding.get("outcome") == "refused"

    @property
    def texts(self) -> list[float]:
        """The arrival of every chunk with text, in order."""
        return sorted((*self.reasoning, *self.content))

    @property
    def ttft(self) -> float | None:
        """Seconds to the first text, thinking included; None if none came."""
        return min((*self.reasoning[:1], *self.content[:1]), default=None)

    @property
    def ttfa(self) -> float | None:
        """Seconds to the first text of the answer proper."""
        return self.content[0] if self.content else None

    @property
    def ttfe(self) -> float | None:
        """Seconds to the first sign of life: text or a progress event."""
        event = self.events[0][0] if self.events else None
        return min((t for t in (self.ttft, event) if t is not None), default=None)

    @property
    def shown(self) -> int:
        """Tokens that the client was given."""
        return int(self.usage.get("completion_tokens") or 0)

    @property
    def generated(self) -> int:
        """Tokens sampled for it, thrown-away ones included; what was shown if no more is known."""
        spent = self.usage.get("decoding") or {}
        return int(spent.get("generated_tokens") or self.shown)

    @property
    def tpot(self) -> float | None:
        """Seconds per shown token after the first text."""
        times = self.texts
        if len(times) < 2 or self.shown < 2:
            return None
        return (times[-1] - times[0]) / (self.shown - 1)

    @property
    def itl(self) -> list[float]:
        """Seconds between chunks of text, which are what a reader waits for."""
        return [after - before for before, after in pairwise(self.texts)]

    def as_json(self) -> dict[str, Any]:
        """For the result file: what there is, but the text."""
        empty: tuple[Any, ...] = (None, "", {}, (), [])
        return {k: v for k, v in asdict(self).items() if v not in empty and k != "text"}

    @staticmethod
    def of(written: Mapping[str, Any]) -> "Record":
        """The record that was written so; unknown keys are a newer version's and left out."""
        known = {one.name for one in fields(Record)}
        given = {k: v for k, v in written.items() if k in known}
        given["events"] = [(float(t), str(name)) for t, name in written.get("events", ())]
        return Record(**given)
