"""The pictures of a report as SVG text: latency against load, cost against accuracy, waterfalls.

Knows points and records, no page.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

from clients.bench.figures import Point, figures
from clients.bench.goals import Goals
from clients.bench.record import Record
from clients.bench.result import groups

AXES = {
    "closed": "concurrent clients", "open": "requests a second", "replay": "requests a second",
}  # fmt: skip
# No date and no random ids: the same run gives the same page. A `$` in an arm's name is no formula.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "bench", "text.parse_math": False}
GREY, BLUE, ORANGE, GREEN = "#b8bec8", "#3b6fb6", "#d9822b", "#3f9b63"


def _drawn(width: float, height: float, draw: Callable[[Any, Any], None], panels: int = 1) -> str:
    """An SVG element of what `draw` puts on a figure and its axes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        draw(figure, axes)
        for one in axes:
            one.spines[["top", "right"]].set_visible(False)
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def against_load(points: Sequence[Point], goals: Goals, kind: str) -> str:
    """First text, whole answer and goodput of every arm over loads of one kind."""
    panels = [
        ("first text, p50 (ms)", "ttft_p50"),
        ("whole answer, p50 and p99 (ms)", "e2e_p50"),
        ("goodput (requests/s that keep all goals)" if goals else "answers/s", "goodput"),
    ]

    def draw(figure: Any, axes: Any) -> None:
        for arm, ones in groups([one for one in points if one.load.kind == kind]).items():
            levels = [one.load.level for one in ones]
            found = [figures(one, goals) for one in ones]
            for axis, (_, name) in zip(axes, panels, strict=True):
                line = axis.plot(levels, _values(found, name), marker="o", label=arm)[0]
                if name == "e2e_p50":
                    axis.plot(
                        levels, _values(found, "e2e_p99"), linestyle=":", color=line.get_color()
                    )
        for axis, (title, _) in zip(axes, panels, strict=True):
            axis.set(title=title, xlabel=AXES[kind], ylim=(0, None))
        axes[0].legend(fontsize="small")

    return _drawn(13, 3.8, draw, len(panels))


def _values(found: Sequence[dict[str, Any]], name: str) -> list[float]:
    """A figure of each; not a number where there is none, which leaves a gap."""
    return [float("nan") if one.get(name) is None else float(one[name]) for one in found]


def against_accuracy(points: Sequence[Point], goals: Goals) -> str:
    """Accuracy over generated tokens a request, each arm at its lightest load."""
    chosen = [ones[0] for ones in groups(points).values()]
    known = [(one, figures(one, goals)) for one in chosen]
    known = [(one, found) for one, found in known if "accuracy" in found]
    if not known:
        return ""

    def draw(figure: Any, axes: Any) -> None:
        for point, found in known:
            value, x = found["accuracy"], found.get("generated_tokens", 0)
            error = [[value - found["accuracy_low"]], [found["accuracy_high"] - value]]
            axes[0].errorbar([x], [value], yerr=error, marker="o", capsize=3, label=point.arm.name)
        axes[0].set(
            xlabel="generated tokens a request", ylabel="accuracy, 95% interval", xlim=(0, None)
        )
        axes[0].legend(fontsize="small")

    return _drawn(6.5, 4, draw)


def waterfall(points: Sequence[Point]) -> str:
    """One request of each arm, the one of median duration at the lightest load, over time."""
    chosen = [(arm, typical(ones[0])) for arm, ones in groups(points).items()]
    shown = [(arm, record) for arm, record in chosen if record is not None]
    if not shown:
        return ""

    def draw(figure: Any, axes: Any) -> None:
        axis = axes[0]
        for row, (_, record) in enumerate(shown):
            first = record.ttft if record.ttft is not None else record.took
            axis.barh(row, 1000 * record.took, color=GREY, height=0.5)
            axis.barh(row, 1000 * first, color="#e6e8ec", height=0.5)
            for times, color in ((record.reasoning, BLUE), (record.content, ORANGE)):
                axis.vlines([1000 * t for t in times], row - 0.25, row + 0.25, colors=color, lw=1)
            axis.plot(
                [1000 * t for t, _ in record.events], [row + 0.34] * len(record.events), "v",
                color=GREEN, markersize=4,
            )  # fmt: skip
        axis.set_yticks(range(len(shown)), [arm for arm, _ in shown])
        axis.invert_yaxis()
        axis.set(xlabel="ms after sending")

    return _drawn(13, 1.2 + 0.5 * len(shown), draw)


def typical(point: Point) -> Record | None:
    """The complete answer of median duration."""
    good = sorted(point.good, key=lambda one: one.took)
    return good[len(good) // 2] if good else None
