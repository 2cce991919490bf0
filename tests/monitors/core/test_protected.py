"""What stands around every monitor: one kind of error, in time, counted, with a circuit."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from monitors.core.base import Calibration, MonitorError, Stage, UnreadableError
from monitors.core.breaker import Circuit, OpenCircuitError
from monitors.core.protected import Protected
from monitors.core.registry import build
from monitors.core.spec import MonitorSpec
from tests.fakes.monitors import Told

ASKED = [{"role": "user", "content": "hello"}]


def around(inner: Told, **fields: Any) -> Protected:
    return Protected(inner, MonitorSpec.model_validate({"kind": "told", **fields}))


async def value(monitor: Protected, *steps: str) -> float:
    return (await monitor.score(ASKED, list(steps), Stage.ANSWER)).value


async def test_every_configured_monitor_is_wrapped() -> None:
    check = {"kind": "exact", "answer": "7"}
    monitor = build("seven", {"kind": "verifier", "check": check, "threshold": 0.25})
    assert isinstance(monitor, Protected)
    assert (monitor.name, monitor.kind, monitor.unit) == ("seven", "verifier", "pass")
    assert monitor.threshold == 0.25
    assert await value(monitor, "7") == 1.0


async def test_any_failure_is_a_monitor_error() -> None:
    inner = Told()
    monitor = around(inner)
    for fault in (ValueError("no weights"), KeyError("x"), TimeoutError(), ZeroDivisionError()):
        inner.fault = fault
        with pytest.raises(MonitorError, match="'told'"):
            await value(monitor, "a")
    inner.fault = None
    for inner.value in (float("nan"), float("inf")):
        with pytest.raises(MonitorError, match="no score"):
            await value(around(inner), "a")


async def test_a_late_score_is_an_error() -> None:
    inner = Told()
    inner.stuck = True
    with pytest.raises(MonitorError, match=r"longer than 0\.02 s"):
        await value(around(inner, timeout_s=0.02), "a")


async def test_the_circuit_opens_and_refuses_at_once() -> None:
    inner = Told()
    monitor = around(inner, breaker={"failures": 2, "rest_s": 60})
    inner.fault = RuntimeError("gone")
    for _ in range(2):
        with pytest.raises(MonitorError, match="gone"):
            await value(monitor, "a")
    inner.fault = None
    with pytest.raises(OpenCircuitError, match="'told': its circuit is open"):
        await value(monitor, "a")
    assert len(inner.read) == 2
    with pytest.raises(MonitorError, match="circuit is open"):
        await monitor.check()


async def test_half_open_lets_one_through() -> None:
    inner, now = Told(), [0.0]
    spec = MonitorSpec.model_validate({"kind": "told", "breaker": {"failures": 1, "rest_s": 5}})
    monitor = Protected(inner, spec, clock=lambda: now[0])
    inner.fault = RuntimeError("gone")
    with pytest.raises(MonitorError):
        await value(monitor, "a")
    now[0], inner.fault, inner.stuck = 5.0, None, True
    probe = asyncio.create_task(value(monitor, "a"))
    await asyncio.sleep(0)
    with pytest.raises(OpenCircuitError):
        await value(monitor, "b")
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    inner.stuck = False
    assert await value(monitor, "c") == 0.5
    assert monitor.breaker.state is Circuit.CLOSED


async def test_a_caller_that_goes_away_is_no_failure() -> None:
    inner = Told()
    monitor = around(inner, breaker={"failures": 1, "rest_s": 60})
    inner.stuck = True
    task = asyncio.create_task(value(monitor, "a"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert monitor.breaker.state is Circuit.CLOSED
    assert (monitor.costs.calls, monitor.costs.failures) == (1, 0)


async def test_a_text_that_cannot_be_read_opens_no_circuit() -> None:
    """Else whoever sends long texts would shut the monitor for all."""
    inner = Told()
    monitor = around(inner, breaker={"failures": 1, "rest_s": 60})
    inner.fault = UnreadableError("too long")
    for _ in range(3):
        with pytest.raises(UnreadableError):
            await value(monitor, "a")
    assert monitor.breaker.state is Circuit.CLOSED
    assert monitor.costs.failures == 3


async def test_costs_are_counted() -> None:
    inner = Told()
    monitor = around(inner, breaker={"failures": 1, "rest_s": 60})
    await value(monitor, "a")
    await value(monitor, "b")
    inner.fault = RuntimeError("gone")
    for _ in range(3):
        with pytest.raises(MonitorError):
            await value(monitor, "c")
    costs = monitor.costs
    assert (costs.calls, costs.failures, costs.refused, costs.tokens) == (3, 1, 2, 6)
    assert costs.seconds > 0


def test_thresholds_and_calibrations(tmp_path: Path) -> None:
    inner = Told()
    assert around(inner).threshold == 0.0
    inner.calibration = Calibration("margin", 0.5, 0.1, threshold=0.3)
    assert around(inner).threshold == 0.3
    stored = tmp_path / "stored.json"
    stored.write_text(json.dumps({"unit": "margin", "mean": 0.0, "std": 1.0, "threshold": -0.4}))
    named = around(inner, calibration=str(stored))
    assert named.threshold == -0.4
    assert named.calibration is not None
    assert around(inner, calibration=str(stored), threshold=0.9).threshold == 0.9
    with pytest.raises(ValueError, match=r"none\.json is no calibration"):
        around(inner, calibration=str(tmp_path / "none.json"))


async def test_an_answer_that_says_nothing_gets_the_lowest_value() -> None:
    inner = Told(9.0, "answer")
    assert await value(around(inner), "thought", "Solution:") == -100.0
    inner.calibration = Calibration("logit", mean=1.0, std=2.0, low=-3.0)
    assert await value(around(inner), ":") == -7.0
    inner.floor = 0.0
    assert await value(around(inner), "") == 0.0
    assert inner.read == []
    assert await value(around(inner), "Solution: 42") == 9.0
    assert await value(around(inner, trivial="score"), ":") == 9.0
    thought = await around(inner).score(ASKED, [":"], Stage.THINKING)
    assert thought.value == 9.0
    assert await value(around(Told(9.0, "safety")), "") == 9.0
