"""The report as one HTML file: no script, no other file, no network."""

from collections.abc import Sequence
from html import escape
from typing import Any

from clients.bench import plots, showing
from clients.bench.figures import figures
from clients.bench.grid import Grid, shown
from clients.bench.result import Result

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem;
  color: #1d2430; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-size: .85rem; display: block; overflow-x: auto }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e3e6eb;
  white-space: nowrap }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left }
svg { max-width: 100%; height: auto } .note { color: #5b6472; font-size: .85rem }
code { background: #f2f4f7; padding: 0 .25rem }
"""
QUANTILES = (50, 90, 95, 99)
TIMED = ("ttft", "ttfa", "tpot", "itl", "e2e")
LATENCY = [f"{kind}_p{q}" for kind in TIMED for q in QUANTILES]
FLOW = (
    "n", "failed", "refused", "requests_per_s", "shown_tokens_per_s", "generated_tokens_per_s",
    "goodput", "goals_met", "generator_late_ms",
)  # fmt: skip
JUDGED = (
    "accuracy", "accuracy_low", "accuracy_high", "estimate_error", "estimate_over_real",
    "pace_error", "cost_error",
)  # fmt: skip


def page(result: Result) -> str:
    """The whole page."""
    goals, points, over = result.goals, result.points, showing.over_first_of(result)
    rows = [(one.arm.name, one.load.name, figures(one, goals)) for one in points]
    listed = {*LATENCY, *FLOW, *JUDGED} | {f"ttfe_p{q}" for q in QUANTILES}
    costs = sorted({key for _, _, found in rows for key in found} - listed)
    kinds = dict.fromkeys(one.load.kind for one in points)
    parts = [
        "<h1>What each strategy costs under load</h1>",
        f'<p class="note">{escape(_about(result))}</p>',
        *(f"<h2>Latency against load: {kind}</h2>{plots.against_load(points, goals, kind)}"
          for kind in kinds),
        _titled("Cost against accuracy", plots.against_accuracy(points, goals)),
        _titled("One request of each", plots.waterfall(points), WATERFALL),
        _titled("Over the first", over.html() if over else "", OVER),
        _titled("Flow", table(rows, FLOW), _goals(result)),
        _titled("Latency (ms)", table(rows, [k for k in LATENCY if _any(rows, k)]), TIMES),
        _titled("Spent per request (means)", table(rows, costs), SPENT),
        _titled("Answers and estimates", table(rows, [k for k in JUDGED if _any(rows, k)])),
    ]  # fmt: skip
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>bench</title><style>{STYLE}"
    return f"{head}</style><body>{''.join(parts)}</body></html>\n"


WATERFALL = (
    "The request of median duration at the lightest load: pale until the first text, blue "
    "thinking, orange answer, green marks progress events."
)
OVER = "Under the same load, with 95% intervals by bootstrap over prompts."
TIMES = (
    "ttft: first text, thinking included. ttfa: first text of the answer. tpot: per shown token "
    "after the first text. itl: between chunks with text. e2e: to the end. Over complete answers."
)
SPENT = "As the server reports it: usage.decoding and the choice's decoding object."


def table(rows: Sequence[tuple[str, str, dict[str, Any]]], columns: Sequence[str]) -> str:
    """Arms and loads over some of their figures; "" without columns."""
    if not columns:
        return ""
    cells = [
        [arm, load, *(shown(found.get(name)) for name in columns)] for arm, load, found in rows
    ]
    return Grid(["strategy", "load", *columns], cells).html()


def _titled(title: str, body: str, note: str = "") -> str:
    """A section; nothing where there is nothing."""
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<h2>{escape(title)}</h2>{body}{said}" if body else ""


def _any(rows: Sequence[tuple[str, str, dict[str, Any]]], key: str) -> bool:
    return any(found.get(key) is not None for _, _, found in rows)


def _goals(result: Result) -> str:
    goals = ", ".join(f"{name} within {bound:g} ms" for name, bound in result.goals.items())
    said = f"Goals: {goals}." if goals else "No goals were set: every complete answer is good."
    return said + " What failed or was refused, by the server or by a guard, misses them."


def _about(result: Result) -> str:
    told = {
        key: ", ".join(f"{name} {said}" for name, said in value.items())
        if isinstance(value, dict) else value
        for key, value in result.about.items()
    }  # fmt: skip
    return " · ".join(f"{key}: {value}" for key, value in told.items())
