"""Every arm under every load: what is sent, in which order, and what was measured.

Before each point requests of their own warm up, which are in no figure. Rounds take turns in their
order of arms, so that a machine that slows down slows all of them. It draws and writes nothing.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from clients.bench import counters
from clients.bench.arm import Arm
from clients.bench.counters import Counted
from clients.bench.driver import Driver
from clients.bench.figures import Point
from clients.bench.load import Load
from clients.bench.prompts import Prompt
from clients.bench.record import Record

WARMING = Load("warming up", concurrent=4)
"""What comes before a replay."""


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    url: str
    model: str
    key: str = "none"


@dataclass(frozen=True)
class Sweep:
    """What is measured: `prompts` of every point, after at least `warmup` of `others`.

    If every one of the others is a text that is measured too, what warms up are the same texts by
    other seeds. `sampling` are further fields of every request's body. `timeout_s` ends a request
    as a failure. Raises ValueError for two arms or two loads of one name, since they could not be
    told apart.
    """

    arms: Sequence[Arm]
    loads: Sequence[Load]
    prompts: Sequence[Prompt]
    others: Sequence[Prompt] = ()
    warmup: int = 2
    rounds: int = 1
    seed: int = 0
    max_tokens: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        said = {
            "arms": ([one.name for one in self.arms], "--strategy LABEL=>… gives one its own name"),
            "loads": ([one.name for one in self.loads], "--concurrency and --rate take each once"),
        }
        for kind, (names, hint) in said.items():
            if twice := [name for i, name in enumerate(names) if name in names[:i]]:
                raise ValueError(f"two {kind} are called {twice[0]!r}: {hint}")

    def points(self) -> Iterator[tuple[int, Arm, Load]]:
        """Round, arm and load in the order of measuring; odd rounds go through the arms back."""
        for turn in range(self.rounds):
            arms = self.arms if turn % 2 == 0 else self.arms[::-1]
            yield from ((turn, arm, load) for load in self.loads for arm in arms)

    def warming(self, load: Load) -> list[Prompt]:
        """What is asked first and not counted."""
        asked = {one.text for one in self.prompts}
        known = [one for one in self.others if one.text not in asked] or self.prompts
        return [known[i % len(known)] for i in range(warming(self.warmup, [load]))]

    def body(self, target: Target, arm: Arm, prompt: Prompt, *what: object) -> dict[str, Any]:
        """One request; its seed depends on `what` it is for and never on the arm: all share it."""
        body: dict[str, Any] = {
            "model": target.model,
            "messages": [{"role": "user", "content": prompt.text}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "seed": seed_of(self.seed, *what, prompt.id),
            **self.sampling,
        }
        if (most := prompt.max_tokens or self.max_tokens) is not None:
            body["max_completion_tokens"] = most
        if arm.decoding:
            body["decoding"] = {"stream_events": True, **arm.decoding}
        return body


def warming(least: int, loads: Sequence[Load]) -> int:
    """How many requests warm up: one for each client that there will be at once."""
    return max([least, *(load.concurrent or 0 for load in loads)]) if least else 0


def seed_of(*parts: object) -> int:
    """A request's seed, from what it is for."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


Told = Callable[[str, int, int], None]
"""Called as a point goes on: its name, requests ended, requests in all."""
Predict = Callable[[Mapping[str, Any]], float | None]
"""The generated tokens that the server expects of a body; None if it does not say."""


Count = Callable[[], Counted | None]
"""What the server's counters say now; None where they cannot be had."""


def measure(
    sweep: Sweep, target: Target, sending: Driver, told: Told,
    predict: Predict | None = None, count: Count = dict,
) -> list[Point]:  # fmt: skip
    """Runs the sweep; rounds of one arm and load come out as one point."""
    rounds = measuring(sweep, target, sending, told, predict, count)
    return list({point.name: point for point in rounds}.values())


def measuring(
    sweep: Sweep, target: Target, sending: Driver, told: Told,
    predict: Predict | None = None, count: Count = dict,
) -> Iterator[Point]:  # fmt: skip
    """Each point as it stands after each of its rounds, so that what ends early leaves those."""
    points: dict[str, Point] = {}
    grown: dict[str, Counter[counters.Name]] = defaultdict(Counter)
    seen = Counter[str]()
    for turn, arm, load in sweep.points():
        point = Point(arm, load)
        point = points.setdefault(point.name, point)
        one = Round(sweep, target, sending, point, turn)
        one.warm(told)
        expected = [predict(body) if predict else None for body in one.bodies]
        before = count()
        one.measure(expected, told)
        if (came := counters.between(before, count())) is not None:
            grown[point.name].update(came)
            seen[point.name] += len(sweep.prompts)
        point.server = counters.figures(grown[point.name], seen[point.name])
        yield point


@dataclass(frozen=True)
class Round:
    """One round of one point."""

    sweep: Sweep
    target: Target
    sending: Driver
    point: Point
    turn: int

    @cached_property
    def bodies(self) -> list[dict[str, Any]]:
        """What is asked and measured, in order."""
        return self._bodies("measured", self.sweep.prompts)

    def _bodies(self, what: str, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        # A short file has a prompt more than once, which is not to be answered alike each time.
        return [
            self.sweep.body(
                self.target, self.point.arm, prompt, what, self.point.load.name, self.turn, i
            )
            for i, prompt in enumerate(prompts)
        ]

    def warm(self, told: Told) -> None:
        """Asks what no figure counts."""
        if bodies := self._bodies("warming", self.sweep.warming(self.point.load)):
            told(f"{self.point.name}, warming up", 0, len(bodies))
            # Recorded arrivals are of what is measured.
            load = self.point.load if self.point.load.arrivals is None else WARMING
            self.sending.run(self._job(bodies, load), lambda _: None)

    def measure(self, expected: Sequence[float | None], told: Told) -> None:
        """Asks what is measured and adds it to the point."""
        point, prompts, heard = self.point, self.sweep.prompts, list[Record]()
        told(point.name, 0, len(prompts))

        def hear(line: dict[str, Any]) -> None:
            index = line["index"]
            heard.append(_judged(line, prompts[index], expected[index], self.turn))
            told(point.name, len(heard), len(prompts))

        end = self.sending.run(self._job(self.bodies, point.load), hear)
        point.records += sorted(heard, key=lambda one: one.index)
        if heard:
            last = max(one.sent + one.took for one in heard)
            point.seconds += last - min(one.sent for one in heard)
        point.late_s = max(point.late_s, end["late_s"])

    def _job(self, bodies: Sequence[dict[str, Any]], load: Load) -> dict[str, Any]:
        """What the sending process is told."""
        times: Sequence[float | None] = load.arrivals or [None] * len(bodies)
        return {
            "url": self.target.url, "key": self.target.key,
            "seed": seed_of(self.sweep.seed, self.turn, self.point.load.name),
            "timeout_s": self.sweep.timeout_s, **load.job(),
            "requests": [
                {"body": body, "at": time} for body, time in zip(bodies, times, strict=True)
            ],
        }  # fmt: skip


def _judged(line: dict[str, Any], prompt: Prompt, expected: float | None, turn: int) -> Record:
    """A record with what only this side knows: the prompt, whether it was answered rightly."""
    record = replace(Record.of({**line, "prompt": prompt.id}), predicted=expected, round=turn)
    known = prompt.answer is not None
    right = bool(prompt.is_right(record.text)) and record.ok if known else None
    return replace(record, right=right)
