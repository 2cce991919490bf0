"""What a server's own counters say of a stretch of time: the time in its queue and its monitors.

Reads the Prometheus text of `/metrics`; a server without these counters says nothing.
"""

import re
from collections.abc import Mapping

import httpx

SUMS = {
    "monitor_ms": "satisfice_monitor_seconds_sum",
    "queue_ms": "satisfice_queue_wait_seconds_sum",
}
"""Figures by the counter, in seconds, that they are means of."""
LINE = re.compile(r"^(\w+)(?:\{[^}]*\})? ([-+.\deE]+)$", re.MULTILINE)
Counted = Mapping[str, float]


def read(text: str) -> dict[str, float]:
    """Each counter's value, its labels added up."""
    found: dict[str, float] = {}
    for name, value in LINE.findall(text):
        if name in SUMS.values():
            found[name] = found.get(name, 0.0) + float(value)
    return found


def counted(http: httpx.Client, url: str) -> Counted:
    """The counters now; nothing where there are none."""
    try:
        answer = http.get(f"{url}/metrics")
    except httpx.HTTPError:
        return {}
    return read(answer.text) if answer.status_code == 200 else {}


def between(before: Counted, after: Counted, requests: int) -> dict[str, float]:
    """Milliseconds per request in between; only of counters that the server has."""
    return {
        figure: 1000 * (after[name] - before.get(name, 0.0)) / requests
        for figure, name in SUMS.items()
        if name in after and requests
    }
