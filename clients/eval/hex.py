"""Claim: many schedules and a vote beat any one schedule of a diffusion model.

Source: arXiv 2510.05040 (HEX). All paths of all block sizes are sampled once; their answers stand
in the trace, and votes of fewer paths are counted from them. Controls: the best single block
(chosen on the validation split) with as many seeds as HEX has votes; random order and top-k margin
on the whole canvas; and the same vote over cheap paths (a threshold, kept keys and values). Several
models, trained from other seeds, are asked the same; their answers to a puzzle are one cluster.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clients.eval.core.asking import Arm, Reply
from clients.eval.core.ballots import Found, Puzzle, average, load
from clients.eval.core.bench import Bench
from clients.eval.core.report import Report, Row, mean_cost
from clients.eval.core.statistics import Interval, difference, holm, mean

TITLE = "a vote over many schedules of a diffusion model (arXiv 2510.05040)"
FOLDER = Path(__file__).resolve().parents[2] / "testbed" / "puzzles"
OPTIONS: Mapping[str, str] = {
    "model": "satisfice-mini-diffusion",
    "others": "",
    "length": "32",
    "blocks": "2,4,8,16,32",
    "seeds": "6",
    "temperature": "0.9",
    "threshold": "0.9",
    "cheap": "all",
    "validation": "240",
    "test_file": str(FOLDER / "test.jsonl"),
    "validation_file": str(FOLDER / "validation.jsonl"),
}
QUESTIONS = 600
MARGIN = 0.02
RULES = ("random", "margin")
"""Orders over the whole canvas that HEX is compared with."""
CHEAP = ("all", "first")
"""Which models are asked for cheap paths too: all of them or the first alone."""


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
        return self._arm("hex", name, {**own, **params}, len(blocks) * seeds)

    def single(self, rule: str) -> Arm:
        """One path over the whole canvas."""
        name, params = f"block_diffusion[rule={rule}]", {"block_length": self.length, "rule": rule}
        return self._arm("block_diffusion", name, params, 1)

    @property
    def cheap(self) -> Mapping[str, Mapping[str, Any]]:
        """What makes a path cheap, by name."""
        threshold = {"rule": "threshold", "threshold": self.threshold}
        return {
            "rule=threshold": threshold,
            "cache=dual": {"cache": "dual"},
            BOTH: {**threshold, "cache": "dual"},
        }

    def _arm(self, strategy: str, name: str, params: Mapping[str, Any], rows: int) -> Arm:
        decoding = {
            "strategy": strategy, "params": {"length": self.length, **params}, "trace": "full",
        }  # fmt: skip
        sampling = {"temperature": self.temperature, "max_tokens": self.length}
        return Arm(name, decoding, sampling, rows)


BOTH = "rule=threshold,cache=dual"


@dataclass
class Trial:
    """What one model said: its best single block, votes by name, single paths by their rule."""

    model: str
    best: int
    found: Mapping[str, Found]
    singles: Mapping[str, Sequence[Reply]]


async def measure(bench: Bench) -> Report:
    """Asks every model all arms."""
    settings = Settings.of(bench.options)
    others = [name for name in bench.options["others"].split(",") if name]
    report = Report("hex", [bench.asker.model, *others])
    few = load(Path(bench.options["validation_file"]), int(bench.options["validation"]))
    puzzles = load(Path(bench.options["test_file"]), bench.n or QUESTIONS)
    if bench.options["cheap"] not in CHEAP:
        raise ValueError(f"cheap is one of {', '.join(CHEAP)}")
    trials: list[Trial] = []
    for model in report.models:
        own = replace(bench, asker=bench.asker.beside(model))
        cheap = bench.options["cheap"] == "all" or not trials
        trials.append(await trial(own, settings, few, puzzles, report, cheap))
    names = [puzzle.answer for puzzle in puzzles]
    Table(report, settings, trials, names, bench.seed).write()
    return report


async def trial(
    bench: Bench, settings: Settings, few: Sequence[Puzzle], puzzles: Sequence[Puzzle],
    report: Report, cheap: bool,
) -> Trial:  # fmt: skip
    """Chooses the best single block on validation, then asks every arm the test puzzles."""
    model = bench.asker.model
    arm = settings.vote(settings.blocks, 2, "validation")
    chosen = Found.of(arm, await bench.ask(arm, few), few)
    alone = {block: round(average(chosen.alone(block)), 3) for block in settings.blocks}
    best = max(alone, key=lambda block: alone[block])
    report.notes.append(f"{model}, validation (n={len(few)}): the best block is {best}: {alone}")
    blocks, seeds = settings.blocks, settings.seeds
    arms = {
        "all": settings.vote(blocks, seeds, "hex"),
        "one": settings.vote([best], settings.votes, f"hex[blocks=[{best}]]"),
    }
    for key, params in settings.cheap.items() if cheap else ():
        arms[key] = settings.vote(blocks, seeds, f"hex[{key}]", **params)
    found = {k: Found.of(a, await bench.ask(a, puzzles), puzzles) for k, a in arms.items()}
    singles = {rule: await bench.ask(settings.single(rule), puzzles) for rule in RULES}
    return Trial(model, best, found, singles)


@dataclass
class Table:
    """The rows and verdicts of what was found, over all models together and for each."""

    report: Report
    settings: Settings
    trials: Sequence[Trial]
    names: Sequence[str]
    seed: int

    def write(self) -> None:
        """Single schedules, votes by their number, controls, tests."""
        settings, votes = self.settings, self.settings.votes
        for block in settings.blocks:
            name = f"block_diffusion[block_length={block}]"
            self._row(name, _alone("all", block))
        for rule in RULES:
            name = f"block_diffusion[rule={rule}]"
            replies = [reply for t in self.trials for reply in t.singles[rule]]
            self._row(name, _rights(rule), mean_cost(replies))
        for seeds in range(1, settings.seeds + 1):
            name = f"hex[votes={seeds * len(settings.blocks)}]"
            cost = self._cost("all", seeds / settings.seeds)
            self._row(name, _voted("all", seeds), cost)
            self._row(name, _tied(seeds), metric="ties")
        for block in settings.blocks:
            name = f"hex[blocks=[{block}],votes={settings.seeds}]"
            self._row(name, _voted("all", settings.seeds, [block]))
        self._row(f"hex[best block,votes={votes}]", self.one, self._cost("one", 1))
        for key in settings.cheap:
            name = f"hex[{key},votes={votes}]"
            self._row(name, self.voted(key), self._cost(key, 1), of=self.having(key))
        for block in settings.blocks:
            name = f"block_diffusion[block_length={block},{BOTH}]"
            self._row(name, _alone(BOTH, block), of=self.having(BOTH))
        self._each()
        self._tests()

    # ---- values per question of one model

    def having(self, key: str) -> list[Trial]:
        """The models that were asked for this vote."""
        return [trial for trial in self.trials if key in trial.found]

    def ours(self, trial: Trial) -> list[float]:
        """HEX with all votes."""
        return trial.found["all"].right(self.settings.seeds)

    def one(self, trial: Trial) -> list[float]:
        """As many seeds of the best block."""
        return trial.found["one"].right(self.settings.votes)

    def alone(self, trial: Trial) -> list[float]:
        """One path of the best block."""
        return trial.found["all"].alone(trial.best)

    def voted(self, key: str) -> "Values":
        """HEX over cheap paths."""
        return _voted(key, self.settings.seeds)

    # ---- rows

    def _each(self) -> None:
        """The same of every model by itself, if there are several."""
        parts = {"best block": self.alone, "best block, all seeds": self.one, "hex": self.ours}
        for trial in self.trials if len(self.trials) > 1 else ():
            for name, values in parts.items():
                interval = mean(values(trial), self.names, self.seed)
                self.report.rows.append(Row.of(f"{trial.model}: {name}", "accuracy", interval))

    def _tests(self) -> None:
        """Paired by puzzle, Holm-adjusted."""
        against = {
            "best single schedule": self._against(self.ours, self.alone),
            "one block": self._against(self.ours, self.one),
        }
        adjusted = holm({name: found.p or 0.0 for name, found in against.items()})
        for name, interval in against.items():
            self.report.rows.append(
                Row.of(f"hex - {name}", "accuracy_difference", interval, p=adjusted[name])
            )
        losses = {
            key: self._against(self.voted(key), self.ours, self.having(key))
            for key in self.settings.cheap
        }
        for key, loss in losses.items():
            self.report.rows.append(Row.of(f"hex[{key}] - hex", "accuracy_difference", loss))
        single, block = against.values()
        sure = adjusted["one block"] < 0.05 and block.value > 0
        agree = all(t.found["all"].agree(self.settings.seeds) for t in self.trials)
        self.report.verdicts += [
            ("HEX beats the best single schedule by 5 points or more", single.value >= 0.05),
            ("HEX beats as many seeds of the best block (Holm-adjusted p < 0.05)", sure),
            ("cheap paths lose at most 2 points (lower bound)", losses[BOTH].low >= -MARGIN),
            ("the server's answers are the votes counted from its traces", agree),
        ]

    def _pooled(
        self, values: "Values", of: Sequence[Trial] | None = None
    ) -> tuple[list[float], list[str]]:
        """Values of these models (of all), and the puzzle that each belongs to."""
        trials = self.trials if of is None else of
        return [value for one in trials for value in values(one)], [*self.names] * len(trials)

    def _against(
        self, ours: "Values", theirs: "Values", of: Sequence[Trial] | None = None
    ) -> Interval:
        found, names = self._pooled(ours, of)
        return difference(found, self._pooled(theirs, of)[0], names, self.seed)

    def _cost(self, name: str, share: float) -> dict[str, float]:
        """What a share of a vote's seeds cost."""
        replies = [reply for trial in self.having(name) for reply in trial.found[name].replies]
        return {key: value * share for key, value in mean_cost(replies).items()}

    def _row(
        self, name: str, values: "Values", cost: Mapping[str, float] | None = None,
        metric: str = "accuracy", of: Sequence[Trial] | None = None,
    ) -> None:  # fmt: skip
        interval = mean(*self._pooled(values, of), self.seed)
        self.report.rows.append(Row.of(name, metric, interval, cost))


Values = Callable[[Trial], list[float]]
"""What of a model's answers counts, per question."""


def _alone(key: str, block: int) -> Values:
    return lambda trial: trial.found[key].alone(block)


def _voted(key: str, seeds: int, blocks: Sequence[int] | None = None) -> Values:
    return lambda trial: trial.found[key].right(seeds, blocks)


def _tied(seeds: int) -> Values:
    return lambda trial: trial.found["all"].tied(seeds)


def _rights(rule: str) -> Values:
    return lambda trial: [float(reply.right) for reply in trial.singles[rule]]


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
