"""Claim: with the same thinking budget, many short thoughts and a vote beat one long thought.

Source: arXiv 2506.04210. Arms: one sample, greedy, extended thinking ("Wait" and an exact number of
tokens) and parallel thinking, over several total budgets, on held-out questions. The budget at
which extended thinking is at its best (the knee) is chosen on the validation split; from there on
parallel thinking is tested against it, paired by question, bootstrapped by template, Holm-adjusted.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clients.eval.core.asking import Arm, Reply
from clients.eval.core.bench import Bench
from clients.eval.core.questions import FOLDER, Question, clusters, load
from clients.eval.core.report import Report, Row, mean_cost
from clients.eval.core.statistics import Interval, difference, holm, mean, ratio, wilson

TITLE = "parallel thinking against one long thought at the same budget (arXiv 2506.04210)"
OPTIONS: Mapping[str, str] = {
    "model": "",
    "paths": "8",
    "budgets": "1,2,4,8",
    "modes": "wait,exact",
    "temperature": "1.0",
    "validation": "240",
    "test_file": str(FOLDER / "test.jsonl"),
    "validation_file": str(FOLDER / "validation.jsonl"),
}
QUESTIONS = 600
# A thought that fits its path nine times in ten; the tenth is cut and made to answer.
FITS = 0.9
UNCAPPED = 1024
ANSWER = 64
PROMPT = 192


@dataclass(frozen=True)
class Settings:
    """The options, read."""

    paths: int
    multiples: Sequence[int]
    modes: Sequence[str]
    sampling: Mapping[str, Any]

    def within(self, unit: int, context: int) -> "Settings":
        """Without the budgets that one thought could not spend in the model's context."""
        fitting = [m for m in self.multiples if m * unit + ANSWER + PROMPT <= context]
        return replace(self, multiples=fitting or self.multiples[:1])

    @staticmethod
    def of(options: Mapping[str, str]) -> "Settings":
        """Raises ValueError for what is no number."""
        multiples = sorted(int(part) for part in options["budgets"].split(","))
        sampling = {"temperature": float(options["temperature"]), "top_p": 1.0}
        return Settings(int(options["paths"]), multiples, options["modes"].split(","), sampling)

    def plain(self) -> Arm:
        """One sample, thinking as long as it likes."""
        return Arm("plain", {"strategy": "plain"}, {**self.sampling, "max_tokens": UNCAPPED})

    def greedy(self) -> Arm:
        """The most likely tokens."""
        sampling = {"temperature": 0.0, "max_tokens": UNCAPPED}
        return Arm("plain[temperature=0]", {"strategy": "plain"}, sampling)

    def extended(self, mode: str, multiple: int, budget: int) -> Arm:
        """One long thought. With "Wait" as often as whole thoughts fit the budget, so that it
        ends where the model ends it; cut short in mid-sum it would be no match.
        """
        params: dict[str, Any] = {"mode": mode, "thinking_budget": budget}
        if mode == "wait":
            params = {"mode": mode, "waits": multiple - 1, "thinking_budget": budget}
        return self._arm("extended_thinking", params, params, 1, budget + ANSWER)

    def parallel(self, paths: int, budget: int) -> Arm:
        """`paths` thoughts that share the budget."""
        params = {"paths": paths, "thinking_budget": budget}
        return self._arm("parallel_thinking", params, params, paths, budget // paths + ANSWER)

    def voting(self, early_stop: bool) -> Arm:
        """All paths with no cap on thinking, with the decided rest cancelled or not."""
        params = {"paths": self.paths, "early_stop": early_stop}
        named = params if not early_stop else {"paths": self.paths}
        return self._arm("parallel_thinking", params, named, self.paths, UNCAPPED)

    def _arm(
        self,
        strategy: str,
        params: Mapping[str, Any],
        named: Mapping[str, Any],
        rows: int,
        max_tokens: int,
    ) -> Arm:
        name = ",".join(f"{key}={str(value).lower()}" for key, value in named.items())
        decoding = {"strategy": strategy, "params": params}
        sampling = {**self.sampling, "max_tokens": max_tokens}
        return Arm(f"{strategy}[{name}]", decoding, sampling, rows)


async def measure(bench: Bench) -> Report:
    """Chooses unit and knee on the validation split, then asks every arm the test questions."""
    settings = Settings.of(bench.options)
    report = Report("parallel_thinking", [bench.asker.model])
    questions = load(Path(bench.options["test_file"]), bench.n or QUESTIONS)
    few = load(Path(bench.options["validation_file"]), int(bench.options["validation"]))
    bench.console.print(f"validation split, {len(few)} questions")
    unit, knee = await _choose(bench, settings, few, report)
    settings = settings.within(unit, await bench.asker.context())
    bench.console.print(f"test split, {len(questions)} questions")
    arms = [settings.plain(), settings.greedy(), settings.voting(True), settings.voting(False)]
    for multiple in settings.multiples:
        budget = multiple * unit
        arms += [settings.extended(mode, multiple, budget) for mode in settings.modes]
        arms.append(settings.parallel(multiple, budget))
    asked = {arm.name: await bench.ask(arm, questions) for arm in arms}
    names = clusters(questions)
    for arm, replies in asked.items():
        report.rows.append(
            Row.of(arm, "accuracy", _accuracy(replies, names, bench.seed), mean_cost(replies))
        )
    _one_sample(report, settings, asked, names, bench.seed)
    _from_the_knee(report, settings, asked, names, bench.seed, (unit, knee))
    _savings(report, settings, asked, names, bench.seed)
    return report


async def _choose(
    bench: Bench, settings: Settings, few: Sequence[Question], report: Report
) -> tuple[int, int]:
    """Tokens of one path, and the total budget at which extended thinking is at its best."""
    plain = await bench.ask(settings.plain(), few)
    unit = max(1, int(np.ceil(np.quantile([reply.thinking for reply in plain], FITS))))
    best: dict[int, float] = {}
    fitting = settings.within(unit, await bench.asker.context())
    for multiple in fitting.multiples:
        for mode in settings.modes:
            replies = await bench.ask(settings.extended(mode, multiple, multiple * unit), few)
            share = sum(reply.right for reply in replies) / len(replies)
            best[multiple * unit] = max(share, best.get(multiple * unit, 0.0))
    knee = max(best, key=lambda budget: (best[budget], -budget))
    report.notes.append(
        f"validation (n={len(few)}): a path gets {unit} thinking tokens (quantile {FITS} of one "
        f"sample); extended thinking is best at {knee} ({best[knee]:.3f})"
    )
    return unit, knee


def _accuracy(replies: Sequence[Reply], names: Sequence[str], seed: int) -> Interval:
    return mean(_right(replies), names, seed)


def _right(replies: Sequence[Reply]) -> list[float]:
    return [float(reply.right) for reply in replies]


Asked = Mapping[str, Sequence[Reply]]


def _one_sample(
    report: Report, settings: Settings, asked: Asked, names: Sequence[str], seed: int
) -> None:
    """The vote against one sample: at least ten points."""
    ours, theirs = settings.voting(True).name, settings.plain().name
    found = difference(_right(asked[ours]), _right(asked[theirs]), names, seed)
    report.rows.append(Row.of(f"{ours} - {theirs}", "accuracy_difference", found, p=found.p))
    held = found.value >= 0.10 and (found.p or 0.0) < 0.01
    report.verdicts.append(
        (f"{settings.paths} paths beat one sample by 10 points or more (p < 0.01)", held)
    )


def _from_the_knee(
    report: Report,
    settings: Settings,
    asked: Asked,
    names: Sequence[str],
    seed: int,
    chosen: tuple[int, int],
) -> None:
    """Parallel against extended thinking at each budget; tested together from the knee on."""
    unit, knee = chosen
    found: dict[str, Interval] = {}
    tested: list[str] = []
    for multiple in settings.multiples:
        ours = settings.parallel(multiple, multiple * unit).name
        for mode in settings.modes:
            theirs = settings.extended(mode, multiple, multiple * unit).name
            name = f"{ours} - {theirs}"
            found[name] = difference(_right(asked[ours]), _right(asked[theirs]), names, seed)
            # No wait and one path: both are one capped sample, there is nothing to test.
            same = multiple == 1 and mode == "wait"
            tested += [name] if multiple * unit >= knee and not same else []
    adjusted = holm({name: found[name].p or 0.0 for name in tested})
    for name, interval in found.items():
        row = Row.of(name, "accuracy_difference", interval, p=adjusted.get(name))
        report.rows.append(row)
    held = bool(tested) and all(found[name].value > 0 and adjusted[name] < 0.05 for name in tested)
    text = f"parallel beats extended thinking at every budget from the knee ({knee}) on"
    report.verdicts.append((f"{text} (Holm-adjusted p < 0.05)", held))


def _savings(
    report: Report, settings: Settings, asked: Asked, names: Sequence[str], seed: int
) -> None:
    """What cancelling decided votes saves, and whether any answer differs."""
    early, full = settings.voting(True).name, settings.voting(False).name
    part = ratio(_tokens(asked[early]), _tokens(asked[full]), names, seed)
    saved = Interval(1 - part.value, 1 - part.high, 1 - part.low, part.n)
    report.rows.append(Row.of(early, "tokens_saved", saved, mean_cost(asked[early])))
    pairs = zip(asked[early], asked[full], strict=True)
    changed = sum(ours.content != theirs.content for ours, theirs in pairs)
    report.rows.append(Row.of(early, "answers_changed", wilson(changed, len(asked[full]))))
    report.verdicts.append(("cancelling decided votes saves 25% or more", saved.value >= 0.25))
    report.verdicts.append(("and changes no answer", changed == 0))


def _tokens(replies: Sequence[Reply]) -> list[float]:
    return [float(reply.spent.get("generated_tokens", 0)) for reply in replies]


def draw(report: Report, path: Path) -> None:
    """Accuracy over the total thinking budget, one line an arm, 95% bands."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for label, points in sorted(series(report).items()):
        budgets = [budget for budget, _ in points]
        axes.plot(budgets, [row.value for _, row in points], marker="o", label=label)
        low, high = [row.low for _, row in points], [row.high for _, row in points]
        axes.fill_between(budgets, low, high, alpha=0.15)
    for row in report.rows:
        if row.metric == "accuracy" and row.arm.startswith("plain"):
            style = "--" if row.arm == "plain" else ":"
            axes.axhline(row.value, linestyle=style, color="gray", label=row.arm)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("total thinking budget (tokens)")
    axes.set_ylabel("accuracy")
    axes.set_title(f"{report.models[0]}, n = {report.rows[0].n}")
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def series(report: Report) -> dict[str, list[tuple[int, Row]]]:
    """The accuracy rows that have a thinking budget, by strategy and mode, in budget order."""
    lines: dict[str, list[tuple[int, Row]]] = {}
    for row in report.rows:
        budget = re.search(r"thinking_budget=(\d+)\]$", row.arm)
        if row.metric != "accuracy" or budget is None:
            continue
        mode = re.search(r"mode=(\w+)", row.arm)
        label = row.arm.partition("[")[0] + (f" ({mode[1]})" if mode else "")
        lines.setdefault(label, []).append((int(budget[1]), row))
    return {label: sorted(points, key=lambda point: point[0]) for label, points in lines.items()}
