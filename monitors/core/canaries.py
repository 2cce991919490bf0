"""Texts with a known verdict, given to a judge once after its start; a wrong one is a warning.

A judge of answers gets answers that say nothing, a guard the texts of its configuration. Nothing
here stops a start.
"""

import asyncio
from collections.abc import Awaitable

from monitors.core.base import Monitor, Score, Stage
from monitors.core.spec import Canary, MonitorSpec
from monitors.core.trivial import NULL_ANSWERS

QUESTION = "What is 17 + 25?"


async def warnings(shown: Monitor, inner: Monitor, spec: MonitorSpec) -> list[str]:
    """What was noticed. `inner` scores, `shown` has the threshold; all calls run side by side."""
    tries = [_tried(shown, inner, canary) for canary in spec.canaries]
    if shown.judges == "answer" and (bar := _bar(shown)) is not None:
        tries += [_rewarded(inner, text, bar) for text in NULL_ANSWERS]
    # At most what one score may take: nobody waits for them but the start.
    found = await asyncio.gather(*(_bounded(one, spec.timeout_s) for one in tries))
    return list(dict.fromkeys(text for text in found if text))


async def _bounded(one: Awaitable[str | None], seconds: float) -> str | None:
    try:
        async with asyncio.timeout(seconds):
            return await one
    except TimeoutError:
        return f"a canary took longer than {seconds:g} s"
    except Exception as fault:
        return f"a canary was not scored: {str(fault) or type(fault).__name__}"


def _bar(monitor: Monitor) -> float | None:
    """What no null answer should reach: the threshold, else the mean of the calibration set."""
    known = monitor.calibration
    if monitor.configured is not None or (known is not None and known.threshold is not None):
        return monitor.threshold
    return known.mean if known is not None else None


async def _rewarded(inner: Monitor, text: str, bar: float) -> str | None:
    score = await inner.score([{"role": "user", "content": QUESTION}], [text], Stage.ANSWER)
    if score.value < bar:
        return None
    return f"rewards the null answer {text!r} with {score.value:.3g}, at or above {bar:.3g}"


async def _tried(shown: Monitor, inner: Monitor, canary: Canary) -> str | None:
    score = await _scored(inner, canary)
    found = "unsafe" if score.value < shown.threshold else "safe"
    if found == canary.expect:
        return None
    start = canary.text if len(canary.text) <= 40 else f"{canary.text[:37]}..."
    return f"holds the canary {start!r} for {found} ({score.value:.3g}), not {canary.expect}"


async def _scored(inner: Monitor, canary: Canary) -> Score:
    asked = canary.text if canary.prompt is None else canary.prompt
    steps = [] if canary.prompt is None else [canary.text]
    return await inner.score([{"role": "user", "content": asked}], steps, Stage.ANSWER)
