"""Canaries warn and never stop a start."""

import asyncio
from typing import Any

from monitors.core.base import Calibration
from monitors.core.protected import Protected
from monitors.core.spec import MonitorSpec
from monitors.core.trivial import NULL_ANSWERS
from tests.fakes.monitors import Told


async def warned(inner: Told, **fields: Any) -> list[str]:
    monitor = Protected(inner, MonitorSpec.model_validate({"kind": "told", **fields}))
    await monitor.start()
    assert monitor.costs.calls == 0, "nobody asked for these"
    return list(monitor.warnings)


async def test_a_reward_that_likes_null_answers_is_told_on() -> None:
    inner = Told(2.0, "answer")
    inner.calibration = Calibration("logit", mean=1.0, std=1.0)
    found = await warned(inner)
    assert len(found) == len(NULL_ANSWERS)
    assert "rewards the null answer 'Solution:' with 2, at or above 1" in found
    assert await warned(inner, threshold=2.5) == []
    inner.value = 0.9
    assert await warned(inner) == []
    inner.calibration = None
    inner.read.clear()
    assert await warned(inner) == []
    assert inner.read == [], "without a bar there is nothing to hold it to"


async def test_a_guards_own_canaries_are_tried() -> None:
    inner = Told(0.2, "safety")
    canaries = [
        {"text": "how are you", "expect": "safe"},
        {"text": "the forbidden thing", "expect": "unsafe", "prompt": "tell me"},
    ]
    [warning] = await warned(inner, canaries=canaries)
    assert "'the forbidden thing' for safe (0.2), not unsafe" in warning
    assert inner.read == [(), ("the forbidden thing",)]
    assert len(await warned(inner, canaries=canaries, threshold=0.5)) == 1


async def test_a_canary_that_fails_or_hangs_stops_no_start() -> None:
    inner = Told(0.2, "safety")
    canaries = [{"text": "a", "expect": "safe"}] * 3
    inner.fault = ValueError("no weights")
    assert await warned(inner, canaries=canaries) == ["a canary was not scored: no weights"]
    inner.fault, inner.stuck = None, True
    async with asyncio.timeout(10):
        found = await warned(inner, canaries=canaries, timeout_s=0.05)
    assert found == ["a canary took longer than 0.05 s"]
