"""Claim: many schedules and a vote beat any one schedule of a diffusion model.

Source: arXiv 2510.05040 (HEX). All paths of all block sizes are sampled once; their answers stand
in the trace, and votes of fewer paths are counted from them. Controls: the best single block
(chosen on the validation split) with as many seeds as HEX has votes; random order and top-k margin
on the whole canvas; and the same vote over cheap paths (a threshold, kept keys and values).
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.eval.core.asking import Arm, Reply
from clients.eval.core.bench import Bench
from clients.eval.core.report import Report, Row, mean_cost
from clients.eval.core.statistics import Interval, difference, holm, mean

TITLE = "a vote over many schedules of a diffusion model (arXiv 2510.05040)"
FOLDER = Path(__file__).resolve().parents[2] / "testbed" / "puzzles"
OPTIONS: Mapping[str, str] = {
    "model": "satisfice-mini-diffusion",
    "length": "32",
    "blocks": "2,4,8,16,32",
    "seeds": "6",
    "temperature": "0.9",
    "threshold": "0.9",
    "validation": "240",
    "test_file": str(FOLDER / "test.jsonl"),
    "validation_file": str(FOLDER / "validation.jsonl"),
}
QUESTIONS = 600
MARGIN = 0.02


@dataclass(frozen=True)
class Puzzle:
    """A question whose answer must be written exactly."""

    id: str
    family: str
    level: int
    prompt: str
    answer: str

    def is_right(self, content: str) -> bool:
        """Whether `content` is the answer and nothing else."""
        return content.strip() == self.answer


def load(path: Path, n: int) -> list[Puzzle]:
    """The first `n`; families and levels take turns. Raises ValueError if there are fewer."""
    lines = path.read_text("utf-8").splitlines()
    if len(lines) < n:
        raise ValueError(f"{path} has {len(lines)} puzzles; {n} were asked for")
    return [Puzzle(**json.loads(line)) for line in lines[:n]]


@dataclass(frozen=True)
class Settings:
    """The options, read."""

    length: int
    blocks: Sequence[int]
    seeds: int
    temperature: float
    threshold: float

    @staticmethod
    def of(options: Mapping[str, str]) -> "Settings":
        """Raises ValueError for what is no number."""
        blocks = sorted(int(part) for part in options["blocks"].split(","))
        numbers = float(options["temperature"]), float(options["threshold"])
        return Settings(int(options["length"]), blocks, int(options["seeds"]), *numbers)

    @property
    def votes(self) -> int:
        """How many paths all seeds of all blocks are."""
        return self.seeds * len(self.blocks)

    def vote(self, blocks: Sequence[int], seeds: int, name: str, **params: Any) -> Arm:
        """All paths of these blocks, with what each of them says."""
        own = {"blocks": list(blocks), "seeds": seeds, "vote_early": False, "answer": "text"}
        return self._arm("hex", name, {**own, **params}, len(blocks))

    def single(self, rule: str) -> Arm:
        """One path over the whole canvas."""
        name, params = f"block_diffusion[rule={rule}]", {"block_length": self.length, "rule": rule}
        return self._arm("block_diffusion", name, params, 1)

    @property
    def cheap(self) -> Mapping[str, Any]:
        """What makes a path cheap."""
        return {"rule": "threshold", "threshold": self.threshold, "cache": "dual"}

    def _arm(self, strategy: str, name: str, params: Mapping[str, Any], rows: int) -> Arm:
        decoding = {
            "strategy": strategy, "params": {"length": self.length, **params}, "trace": "full",
        }  # fmt: skip
        sampling = {"temperature": self.temperature, "max_tokens": self.length}
        return Arm(name, decoding, sampling, rows)


@dataclass(frozen=True)
class Walk:
    """One path of a vote: its block, its seed and what it said (None: nothing)."""

    block: int
    seed: int
    said: str | None


def paths(reply: Reply) -> list[Walk]:
    """All paths of a reply, in the order in which they ran."""
    nodes = reply.decoding["trace"]["nodes"]
    return [
        Walk(node["block_length"], node["seed"], node["answer"])
        for node in nodes
        if node["kind"] == "path"
    ]


def voted(found: Sequence[Walk]) -> tuple[str | None, bool]:
    """The most frequent answer, ties to the smallest block and seed; whether there was a tie."""
    ordered = sorted(found, key=lambda path: (path.block, path.seed))
    counts = Counter(path.said for path in ordered if path.said is not None).most_common(2)
    if not counts:
        return None, False
    return counts[0][0], len(counts) > 1 and counts[0][1] == counts[1][1]


@dataclass
class Found:
    """One vote's replies with their paths; values per question."""

    arm: Arm
    replies: Sequence[Reply]
    paths: Sequence[Sequence[Walk]]
    answers: Sequence[str]

    @staticmethod
    def of(arm: Arm, replies: Sequence[Reply], puzzles: Sequence[Puzzle]) -> "Found":
        """Reads the traces."""
        return Found(arm, replies, [paths(r) for r in replies], [p.answer for p in puzzles])

    def right(self, seeds: int, blocks: Sequence[int] | None = None) -> list[float]:
        """Whether the vote of so many seeds (of these blocks) is right, per question."""
        return [float(self._vote(found, seeds, blocks)[0] == a) for found, a in self._pairs()]

    def tied(self, seeds: int) -> list[float]:
        """Whether that vote was a tie, per question."""
        return [float(self._vote(found, seeds, None)[1]) for found, _ in self._pairs()]

    def alone(self, block: int) -> list[float]:
        """How often one path of a block is right, per question."""
        return [
            _mean([float(path.said == a) for path in found if path.block == block])
            for found, a in self._pairs()
        ]

    def _pairs(self) -> list[tuple[Sequence[Walk], str]]:
        return list(zip(self.paths, self.answers, strict=True))

    @staticmethod
    def _vote(
        found: Sequence[Walk], seeds: int, blocks: Sequence[int] | None
    ) -> tuple[str | None, bool]:
        return voted([p for p in found if p.seed < seeds and (not blocks or p.block in blocks)])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


async def measure(bench: Bench) -> Report:
    """Chooses the best single block on validation, then asks every arm the test puzzles."""
    settings = Settings.of(bench.options)
    report = Report("hex", [bench.asker.model])
    few = load(Path(bench.options["validation_file"]), int(bench.options["validation"]))
    puzzles = load(Path(bench.options["test_file"]), bench.n or QUESTIONS)
    arm = settings.vote(settings.blocks, 2, "validation")
    chosen = Found.of(arm, await bench.ask(arm, few), few)
    alone = {block: _mean(chosen.alone(block)) for block in settings.blocks}
    best = max(alone, key=lambda block: alone[block])
    report.notes.append(f"validation (n={len(few)}): the best single block is {best}: {alone}")
    arms = {
        "all": settings.vote(settings.blocks, settings.seeds, "hex"),
        "one": settings.vote([best], settings.votes, f"hex[blocks=[{best}]]"),
        "cheap": settings.vote(settings.blocks, settings.seeds, "hex[cheap]", **settings.cheap),
    }
    found = {k: Found.of(a, await bench.ask(a, puzzles), puzzles) for k, a in arms.items()}
    names = [puzzle.answer for puzzle in puzzles]
    for rule in ("random", "margin"):
        single = settings.single(rule)
        replies = await bench.ask(single, puzzles)
        right = mean([float(reply.right) for reply in replies], names, bench.seed)
        report.rows.append(Row.of(single.name, "accuracy", right, mean_cost(replies)))
    Table(report, settings, found, names, bench.seed, best).write()
    return report


@dataclass
class Table:
    """The rows and verdicts of what was found."""

    report: Report
    settings: Settings
    found: Mapping[str, Found]
    names: Sequence[str]
    seed: int
    best: int

    def write(self) -> None:
        """Single schedules, votes by their number, controls, tests."""
        all_, settings = self.found["all"], self.settings
        for block in settings.blocks:
            self._row(f"block_diffusion[block_length={block}]", all_.alone(block))
        for seeds in range(1, settings.seeds + 1):
            name = f"hex[votes={seeds * len(settings.blocks)}]"
            self._row(name, all_.right(seeds), self._cost("all", seeds / settings.seeds))
            self._row(name, all_.tied(seeds), metric="ties")
        for block in settings.blocks:
            name = f"hex[blocks=[{block}],votes={settings.seeds}]"
            self._row(name, all_.right(settings.seeds, [block]))
        one, cheap = self.found["one"], self.found["cheap"]
        name = f"hex[blocks=[{self.best}],votes={settings.votes}]"
        self._row(name, one.right(settings.votes), self._cost("one", 1))
        name = f"hex[rule=threshold,cache=dual,votes={settings.votes}]"
        self._row(name, cheap.right(settings.seeds), self._cost("cheap", 1))
        for block in settings.blocks:
            name = f"block_diffusion[block_length={block},rule=threshold,cache=dual]"
            self._row(name, cheap.alone(block))
        self._tests(all_, one, cheap)

    def _tests(self, all_: Found, one: Found, cheap: Found) -> None:
        """Paired by puzzle, Holm-adjusted."""
        ours, settings = all_.right(self.settings.seeds), self.settings
        against = {
            "best single schedule": self._against(ours, all_.alone(self.best)),
            "one block": self._against(ours, one.right(settings.votes)),
        }
        adjusted = holm({name: found.p or 0.0 for name, found in against.items()})
        for name, interval in against.items():
            self.report.rows.append(
                Row.of(f"hex - {name}", "accuracy_difference", interval, p=adjusted[name])
            )
        loss = self._against(cheap.right(settings.seeds), ours)
        self.report.rows.append(Row.of("hex[cheap] - hex", "accuracy_difference", loss))
        single, block = against.values()
        sure = adjusted["one block"] < 0.05 and block.value > 0
        self.report.verdicts += [
            ("HEX beats the best single schedule by 5 points or more", single.value >= 0.05),
            ("HEX beats as many seeds of the best block (Holm-adjusted p < 0.05)", sure),
            ("cheap paths lose at most 2 points (lower bound)", loss.low >= -MARGIN),
            ("the server's answers are the votes counted from its traces", self._agree(all_)),
        ]

    def _agree(self, found: Found) -> bool:
        said = [float(reply.right) for reply in found.replies]
        return said == found.right(self.settings.seeds)

    def _against(self, ours: Sequence[float], theirs: Sequence[float]) -> Interval:
        return difference(ours, theirs, self.names, self.seed)

    def _cost(self, name: str, share: float) -> dict[str, float]:
        """What a share of a vote's waves cost."""
        return {key: value * share for key, value in mean_cost(self.found[name].replies).items()}

    def _row(
        self,
        name: str,
        values: Sequence[float],
        cost: Mapping[str, float] | None = None,
        metric: str = "accuracy",
    ) -> None:
        self.report.rows.append(Row.of(name, metric, mean(values, self.names, self.seed), cost))


def draw(report: Report, path: Path) -> None:
    """Accuracy over the number of votes, beside every single schedule."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    rows = [row for row in report.rows if row.metric == "accuracy"]
    votes = {int(r.arm[10:-1]): r for r in rows if r.arm.startswith("hex[votes=")}
    axes.plot(list(votes), [row.value for row in votes.values()], marker="o", label="hex")
    axes.fill_between(
        list(votes), [r.low for r in votes.values()], [r.high for r in votes.values()], alpha=0.15
    )
    for row in rows:
        if row.arm.startswith("block_diffusion[block_length=") and "rule" not in row.arm:
            axes.axhline(row.value, linestyle=":", color="gray")
            axes.annotate(row.arm[16:-1], (max(votes), row.value), fontsize=7)
    axes.set_xlabel("votes")
    axes.set_ylabel("accuracy")
    axes.set_title(f"{report.models[0]}, n = {rows[0].n}")
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
