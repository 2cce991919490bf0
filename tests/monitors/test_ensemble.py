"""Ensembles: each aggregate by hand, units, quorum, labels, and what fails."""

import asyncio
from typing import Any

import pytest

from monitors.core.base import Calibration, MonitorError, Score, Stage, UnreadableError
from monitors.core.protected import Protected
from monitors.core.registry import Parts, build
from tests.fakes.monitors import Told
from tests.waiting import until

STORED = Calibration("margin", 1.0, 2.0, threshold=0.5)


def told(name: str, value: float, **own: Any) -> Told:
    monitor = Told(value)
    monitor.name = name
    for field, one in own.items():
        setattr(monitor, field, one)
    return monitor


def ensemble(*members: Told, **spec: Any) -> Protected:
    parts = Parts(monitors={member.name: member for member in members})
    names = [member.name for member in members]
    return build("all", {"kind": "ensemble", "members": names, **spec}, parts)


async def score(monitor: Protected) -> Score:
    return await monitor.score([], ["an answer"], Stage.ANSWER)


async def test_the_worst_member_decides() -> None:
    monitor = ensemble(told("a", 0.5), told("b", -0.25), told("c", 0.9))
    found = await score(monitor)
    assert (found.value, found.raw, found.tokens) == (-0.25, -0.25, 9)
    assert monitor.unit == "margin"


async def test_disagreement_costs() -> None:
    members = told("a", 1.0), told("b", 0.0), told("c", 0.5)
    found = await score(ensemble(*members, aggregate="mean", penalty=2.0))
    assert found.value == pytest.approx(0.5 - 2.0 * (0.25 + 0.25) / 3)
    assert (await score(ensemble(*members, aggregate="mean", penalty=0.0))).value == 0.5


async def test_votes_are_counted_at_each_members_own_threshold() -> None:
    high = told("high", 0.4, configured=0.5, unit="other")
    yes, also = told("yes", 0.1), told("also", 0.3)
    monitor = ensemble(high, yes, also, aggregate="majority")
    assert (await score(monitor)).value == pytest.approx(1 / 3)
    assert (await score(monitor)).value >= monitor.threshold
    tied = ensemble(high, yes, aggregate="majority")
    assert (await score(tied)).value == 0.0
    assert (await score(tied)).value < tied.threshold, "a tie is no majority"


async def test_units_must_agree_or_be_standardised() -> None:
    one = told("a", 3.0, calibration=STORED)
    other = told("b", 10.0, unit="logit", calibration=Calibration("logit", 20.0, 5.0, 22.5))
    with pytest.raises(ValueError, match=r"standardise: must be true.*a in margin, b in logit"):
        ensemble(one, other)
    monitor = ensemble(one, other, standardise=True)
    assert (await score(monitor)).value == pytest.approx((10.0 - 20.0) / 5.0)
    assert (await score(monitor)).raw == 10.0
    assert monitor.unit == "deviations"
    with pytest.raises(ValueError, match="standardise: c: has no calibration"):
        ensemble(one, told("c", 1.0), standardise=True)


def test_a_threshold_that_all_share_is_taken() -> None:
    same = [told(name, 0.0, calibration=STORED) for name in "ab"]
    assert ensemble(*same).threshold == 0.5
    assert ensemble(*same, standardise=True).threshold == pytest.approx(-0.25)
    assert ensemble(same[0], told("c", 0.0)).threshold == 0.0
    assert ensemble(*same, threshold=0.7).threshold == 0.7


async def test_a_member_that_fails_fails_all_but_for_a_quorum() -> None:
    broken = told("broken", 0.0, fault=MonitorError("no power"))
    fine, worse = told("fine", 0.5), told("worse", -0.5)
    with pytest.raises(MonitorError, match="2 of 3 members can answer, 3 must: no power"):
        await score(ensemble(broken, fine, worse))
    found = await score(ensemble(broken, fine, worse, quorum=2))
    assert (found.value, found.label) == (-0.5, "no label (2 of 3 answered)")
    with pytest.raises(MonitorError, match="1 of 2"):
        await score(ensemble(broken, fine, quorum=2))


async def test_a_text_that_no_member_can_read_is_the_texts_fault() -> None:
    short = told("short", 0.0, fault=UnreadableError("too long"))
    with pytest.raises(UnreadableError, match="too long"):
        await score(ensemble(short, told("fine", 0.5)))
    broken = told("broken", 0.0, fault=MonitorError("no power"))
    with pytest.raises(MonitorError) as raised:
        await score(ensemble(short, broken))
    assert not isinstance(raised.value, UnreadableError)


async def test_the_worst_label_passes_through() -> None:
    spec = {"kind": "rules", "rules": {"salt": {"words": ["salt"]}}}
    rules = build("rules", spec)
    more = build("more", {"kind": "rules", "rules": {"pepper": {"words": ["pepper"]}}})
    parts = Parts(monitors={"rules": rules, "more": more})
    monitor = build("all", {"kind": "ensemble", "members": ["rules", "more"]}, parts)
    assert (await monitor.score([], ["some salt"], Stage.ANSWER)).label == "salt"
    assert (await monitor.score([], ["some pepper"], Stage.ANSWER)).label == "pepper"
    assert (await monitor.score([], ["nothing"], Stage.ANSWER)).label is None
    assert (monitor.judges, monitor.floor) == ("safety", -1.0)


async def test_members_are_asked_side_by_side_and_end_with_the_caller() -> None:
    before = asyncio.all_tasks()
    stuck = [told(name, 0.0, stuck=True) for name in "ab"]
    call = asyncio.create_task(score(ensemble(*stuck)))
    await until(lambda: all(member.read for member in stuck))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not asyncio.all_tasks() - before


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"members": ["a"]}, "at least 2"),
        ({"members": ["a", "a"]}, "named twice"),
        ({"members": ["a", "b"], "quorum": 3}, "there are 2 members"),
        ({"members": ["a", "nobody"]}, "no monitor 'nobody'"),
    ],
)
def test_a_faulty_ensemble_is_refused(spec: dict[str, Any], reason: str) -> None:
    parts = Parts(monitors={name: told(name, 0.0) for name in "ab"})
    with pytest.raises(ValueError, match=reason):
        build("all", {"kind": "ensemble", **spec}, parts)
