"""What a server's own counters say of a stretch of time: waiting, monitors, costs foreseen.

Reads the Prometheus text of `/metrics`; a server without these counters says nothing.
"""

from collections.abc import Mapping
from math import inf

import httpx
from prometheus_client.parser import text_string_to_metric_families

SUMS = {
    "monitor_ms": "satisfice_monitor_seconds_sum",
    "queue_ms": "satisfice_queue_wait_seconds_sum",
}
"""Figures by the counter, in seconds, that they are means of."""
MEDIANS = {"cost_error": "satisfice_cost_error_bucket"}
"""Figures by the histogram that they are medians of."""
Name = tuple[str, float]
"""A counter and, of a histogram, the upper bound of a bucket."""
Counted = Mapping[Name, float]


def read(text: str) -> dict[Name, float]:
    """Each counter's value, its labels added up; a bucket's holds those below it as well."""
    found: dict[Name, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in (*SUMS.values(), *MEDIANS.values()):
                name = sample.name, float(sample.labels.get("le", inf))
                found[name] = found.get(name, 0.0) + sample.value
    return found


def counted(http: httpx.Client, url: str) -> Counted | None:
    """The counters now; None where they could not be had."""
    try:
        answer = http.get(f"{url}/metrics")
        return read(answer.text) if answer.status_code == 200 else None
    except (httpx.HTTPError, ValueError):  # some page that is no list of metrics
        return None


def between(before: Counted | None, after: Counted | None) -> Counted | None:
    """What came in between; None where either end is not known."""
    if before is None or after is None:
        return None
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def figures(grown: Counted, requests: int) -> dict[str, float]:
    """Milliseconds per request, and medians, of what came; only of what the server counts."""
    found = {
        figure: 1000 * sum(_of(grown, name).values()) / requests
        for figure, name in SUMS.items()
        if requests and _of(grown, name)
    }
    middles = {figure: median(_of(grown, name)) for figure, name in MEDIANS.items()}
    return found | {figure: value for figure, value in middles.items() if value is not None}


def _of(grown: Counted, name: str) -> dict[float, float]:
    return {bound: value for (counter, bound), value in grown.items() if counter == name}


def median(below: Mapping[float, float]) -> float | None:
    """The median of a histogram as if each bucket were evenly filled; None of nothing.

    `below` has how many lie at or under each bound. Beyond the last finite bound it is that bound.
    """
    bounds = sorted(below)
    half = below[bounds[-1]] / 2 if bounds else 0.0
    if not half:
        return None
    i = next(i for i, bound in enumerate(bounds) if below[bound] >= half)
    low, under = (bounds[i - 1], below[bounds[i - 1]]) if i else (0.0, 0.0)
    if bounds[i] == inf:
        return low
    return low + (bounds[i] - low) * (half - under) / (below[bounds[i]] - under)
