"""Every arm under every load: what is sent, in which order, and what was measured.

The first requests of a point warm up and are left out of its figures. Rounds take turns in their
order of arms, so that a machine that slows down slows all of them. It draws and writes nothing.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clients.bench import counters
from clients.bench.arm import Arm
from clients.bench.counters import Counted
from clients.bench.driver import Driver
from clients.bench.figures import Point
from clients.bench.load import Load
from clients.bench.prompts import Prompt
from clients.bench.record import Record


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    url: str
    model: str
    key: str = "none"


@dataclass(frozen=True)
class Sweep:
    """What is measured: `prompts` of every point, after `warmup` ones of its own.

    `sampling` are further fields of every request's body. `timeout_s` ends a request as a failure.
    """

    arms: Sequence[Arm]
    loads: Sequence[Load]
    prompts: Sequence[Prompt]
    warmup: int = 2
    rounds: int = 1
    seed: int = 0
    max_tokens: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 300.0

    def points(self) -> Iterator[tuple[int, Arm, Load]]:
        """Round, arm and load in the order of measuring; odd rounds go through the arms back."""
        for turn in range(self.rounds):
            arms = self.arms if turn % 2 == 0 else self.arms[::-1]
            yield from ((turn, arm, load) for load in self.loads for arm in arms)

    def warming(self, load: Load) -> list[Prompt]:
        """What is asked first and not counted; a replay has no time for it."""
        if load.arrivals is not None:
            return []
        count = max(self.warmup, load.concurrent or 0) if self.warmup else 0
        known = self.prompts[::-1]
        return [known[i % len(known)] for i in range(count)]

    def body(self, target: Target, arm: Arm, prompt: Prompt, turn: int) -> dict[str, Any]:
        """One request; its seed depends on the prompt and the round alone, so all arms share it."""
        body: dict[str, Any] = {
            "model": target.model,
            "messages": [{"role": "user", "content": prompt.text}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "seed": seed_of(self.seed, turn, prompt.id),
            **self.sampling,
        }
        if (most := prompt.max_tokens or self.max_tokens) is not None:
            body["max_completion_tokens"] = most
        if arm.decoding:
            body["decoding"] = {"stream_events": True, **arm.decoding}
        return body


def seed_of(*parts: object) -> int:
    """A request's seed, from what it is for."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


Told = Callable[[str, int, int], None]
"""Called as a point goes on: its name, requests ended, requests in all."""
Predict = Callable[[Mapping[str, Any]], float | None]
"""The generated tokens that the server expects of a body; None if it does not say."""


Count = Callable[[], Counted]
"""What the server's counters say now."""


def measure(
    sweep: Sweep, target: Target, sending: Driver, told: Told,
    predict: Predict | None = None, count: Count = dict,
) -> list[Point]:  # fmt: skip
    """Runs the sweep; rounds of one arm and load come out as one point."""
    points: dict[tuple[str, str], Point] = {}
    grown: dict[str, Counter[counters.Name]] = defaultdict(Counter)
    for turn, arm, load in sweep.points():
        point = points.setdefault((arm.name, load.name), Point(arm, load))
        before = count()
        _run(sweep, target, sending, point, turn, told, predict)
        grown[point.name].update(counters.between(before, count()))
        asked = (turn + 1) * (len(sweep.warming(load)) + len(sweep.prompts))
        point.server = counters.figures(grown[point.name], asked)
    return list(points.values())


def _run(
    sweep: Sweep, target: Target, sending: Driver, point: Point, turn: int, told: Told,
    predict: Predict | None,
) -> None:  # fmt: skip
    """One round of one point."""
    warming = sweep.warming(point.load)
    asked = [*warming, *sweep.prompts]
    bodies = [sweep.body(target, point.arm, one, turn) for one in asked]
    expected = [predict(body) if predict else None for body in bodies]
    at: Sequence[float | None] = point.load.arrivals or [None] * len(bodies)
    job = {
        "url": target.url, "key": target.key, "seed": seed_of(sweep.seed, turn, point.load.name),
        "timeout_s": sweep.timeout_s, **point.load.job(),
        "requests": [
            {"body": body, "at": time} for body, time in zip(bodies, at, strict=True)
        ],
    }  # fmt: skip
    told(point.name, 0, len(bodies))
    heard: list[Record] = []

    def hear(line: dict[str, Any]) -> None:
        prompt = asked[line["index"]]
        heard.append(_judged(line, prompt, expected[line["index"]], turn))
        told(point.name, len(heard), len(bodies))

    end = sending.run(job, hear)
    measured = [one for one in heard if one.index >= len(warming)]
    point.records += sorted(measured, key=lambda one: one.index)
    if measured:
        point.seconds += max(r.sent + r.took for r in measured) - min(r.sent for r in measured)
    point.late_s = max(point.late_s, end["late_s"])


def _judged(line: dict[str, Any], prompt: Prompt, expected: float | None, turn: int) -> Record:
    """A record with what only this side knows: the prompt, whether it was answered rightly."""
    record = replace(Record.of({**line, "prompt": prompt.id}), predicted=expected, round=turn)
    known = prompt.answer is not None
    right = bool(prompt.is_right(record.text)) and record.ok if known else None
    return replace(record, right=right)
