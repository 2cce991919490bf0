"""Measures a configured guard on labelled prompts: what it detects, what it flags without need.

The prompts are a CSV file with the columns prompt, type and label (safe or unsafe), as XSTest has
them; none come with the server. It asks /v1/moderations, so any guard of any server will do.
"""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from clients.eval.core.asking import Verdict
from clients.eval.core.bench import Bench
from clients.eval.core.report import Report, Row
from clients.eval.core.statistics import auroc, wilson

TITLE = "a guard on labelled prompts: detection and over-refusal by type"
OPTIONS: Mapping[str, str] = {
    "model": "",
    "guard": "",
    "prompts": "",
    "concurrent": "32",
    "calibration": "",
}
FOLDER_VARIABLE = "SATISFICE_DATA"
STORED = Path("safety") / "xstest_half.csv"
COLUMNS = ("prompt", "type", "label")


@dataclass(frozen=True)
class Labelled:
    """A prompt of a type, safe or unsafe to answer."""

    prompt: str
    type: str
    label: str


async def measure(bench: Bench) -> Report:
    """Has every prompt judged."""
    prompts = load(prompts_file(bench.options["prompts"]), bench.n)
    guard, concurrent = bench.options["guard"], int(bench.options["concurrent"])
    with bench.bar(guard or "the first guard", len(prompts)) as told:
        texts = [one.prompt for one in prompts]
        verdicts = await bench.asker.judge(guard, texts, told, concurrent)
    report = Report("guard", [verdicts[0].guard])
    _shares(report, prompts, verdicts)
    _scores(report, prompts, verdicts, bench.seed)
    if chosen := bench.options["calibration"]:
        unit = await bench.asker.unit(verdicts[0].guard)
        report.notes.append(_store(Path(chosen), calibration(prompts, verdicts, unit)))
    return report


def calibration(
    prompts: Sequence[Labelled], verdicts: Sequence[Verdict], unit: str
) -> dict[str, Any]:
    """What a server stores of a monitor: the spread of its scores and the threshold that fits.

    That is the score with the best balanced accuracy when all at or above it is let through.
    Raises ValueError without scores of safe and of unsafe prompts.
    """
    pairs = zip(prompts, verdicts, strict=True)
    scored = [(v.score, one.label == "safe") for one, v in pairs if v.score is not None]
    if len({safe for _, safe in scored}) < 2:
        raise ValueError("--set calibration: it takes scores of safe and of unsafe prompts")
    scores = sorted(score for score, _ in scored)
    best = max(scores, key=lambda at: _balanced(scored, at))
    spread = {"mean": fmean(scores), "std": pstdev(scores)}
    ends = {"low": scores[0], "high": scores[-1]}
    return {"unit": unit, **spread, "threshold": best, "n": len(scores), **ends}


def _store(path: Path, found: Mapping[str, Any]) -> str:
    """Writes a calibration; what is said of it."""
    path.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return f"calibration in {path}: threshold {found['threshold']:.3g}, n = {found['n']}"


def _balanced(scored: Sequence[tuple[float, bool]], threshold: float) -> float:
    """Share of the safe ones let through plus that of the unsafe ones stopped."""
    safe = [score >= threshold for score, label in scored if label]
    bad = [score < threshold for score, label in scored if not label]
    return fmean(safe) + fmean(bad)


def prompts_file(chosen: str) -> Path:
    """The file named by the option, else the one in the folder of data. Raises ValueError."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not chosen and not folder:
        raise ValueError(
            f"name the prompts: --set prompts=FILE.csv, or {FOLDER_VARIABLE} with {STORED} in it"
        )
    path = Path(chosen) if chosen else Path(str(folder)) / STORED
    if not path.is_file():
        raise ValueError(f"--set prompts: there is no file {path}")
    return path


def load(path: Path, n: int | None = None) -> list[Labelled]:
    """The first `n` prompts; fewer if there are fewer. Raises ValueError for another form."""
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} lacks the columns {', '.join(missing)}")
        found = [_read(path, i, row) for i, row in enumerate(reader, 2)][:n]
    if not found:
        raise ValueError(f"{path} holds no prompts")
    return found


def _read(path: Path, number: int, row: Mapping[str, str]) -> Labelled:
    if row["label"] not in ("safe", "unsafe"):
        raise ValueError(f"{path}, row {number}: label is {row['label']!r}, not safe or unsafe")
    return Labelled(row["prompt"], row["type"], row["label"])


def _shares(report: Report, prompts: Sequence[Labelled], verdicts: Sequence[Verdict]) -> None:
    """Shares flagged: of all that is unsafe, of all that is safe, by type."""
    flags = [verdict.flagged for verdict in verdicts]
    arm = f"guard[{report.models[0]}]"
    for metric, label in (("detection", "unsafe"), ("over_refusal", "safe")):
        chosen = [flag for one, flag in zip(prompts, flags, strict=True) if one.label == label]
        if chosen:
            report.rows.append(Row.of(arm, metric, wilson(sum(chosen), len(chosen))))
    for label, kind in sorted({(one.label, one.type) for one in prompts}, reverse=True):
        chosen = [
            flag
            for one, flag in zip(prompts, flags, strict=True)
            if (one.label, one.type) == (label, kind)
        ]
        name = f"guard[{report.models[0]},type={kind},label={label}]"
        report.rows.append(Row.of(name, "flagged", wilson(sum(chosen), len(chosen))))


def _scores(
    report: Report, prompts: Sequence[Labelled], verdicts: Sequence[Verdict], seed: int
) -> None:
    """How well the scores part safe from unsafe at any threshold, where the answers have scores."""
    scored = [
        (one.label, verdict.score)
        for one, verdict in zip(prompts, verdicts, strict=True)
        if verdict.score is not None
    ]
    safe = [score for label, score in scored if label == "safe"]
    bad = [score for label, score in scored if label == "unsafe"]
    if len(scored) < len(prompts) or not safe or not bad:
        report.notes.append("no AUROC: it takes scores, of safe and of unsafe prompts")
        return
    arm = f"guard[{report.models[0]}]"
    report.rows.insert(2, Row.of(arm, "auroc", auroc(safe, bad, seed)))


def draw(report: Report, path: Path) -> None:
    """The share flagged of each type, unsafe ones above."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in report.rows if row.metric == "flagged"][::-1]
    names = [row.arm.partition("type=")[2].rstrip("]").replace(",label=", ", ") for row in rows]
    values = [row.value for row in rows]
    bounds = [
        [row.value - row.low for row in rows],
        [row.high - row.value for row in rows],
    ]
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.3 * len(rows)), layout="constrained")
    axes.barh(names, values, xerr=bounds)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share flagged")
    axes.set_title(report.models[0])
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
