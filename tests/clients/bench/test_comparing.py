"""Two runs against each other, and bars for CI."""

import numpy as np
import pytest

from clients.bench import gate
from clients.bench.comparing import matched, ratio
from clients.bench.figures import Point, metric
from clients.bench.load import Load
from tests.clients.bench.records import failed, point, record


def noisy(mean: float, n: int = 60, seed: int = 0, arm: str = "plain") -> Point:
    took = np.random.default_rng(seed).gamma(20, mean / 20, n)
    return point(*(record(i, took=float(t)) for i, t in enumerate(took)), arm=arm)


def test_a_true_difference_is_apart_and_none_is_not() -> None:
    e2e = metric("e2e_p50", {}, [])
    twice = ratio(noisy(2.0, seed=1), noisy(1.0, seed=2), e2e)
    assert twice.low is not None
    assert twice.high is not None
    assert twice.low < 2.0 < twice.high
    assert twice.apart
    assert not ratio(noisy(1.0, seed=3), noisy(1.0, seed=2), e2e).apart


def test_intervals_hold_the_true_ratio_as_often_as_they_say() -> None:
    """Forty pairs of runs whose medians are equal: about 38 intervals must hold 1."""
    e2e = metric("e2e_p50", {}, [])
    held = 0
    for seed in range(40):
        ours, theirs = noisy(1.0, 30, 2 * seed), noisy(1.0, 30, 2 * seed + 1)
        held += not ratio(ours, theirs, e2e, seed).apart
    assert held >= 34


def test_the_same_run_is_equal_to_itself() -> None:
    one = ratio(noisy(1.0), noisy(1.0), metric("e2e_p99", {}, []))
    assert (one.ratio, one.low, one.high) == (1, 1, 1)


def test_nothing_to_compare_is_said() -> None:
    none = ratio(point(failed(0), failed(1)), noisy(1.0), metric("e2e_p50", {}, []))
    assert (none.ours, none.ratio, none.low) == (None, None, None)


def test_points_are_matched_by_arm_and_load() -> None:
    ours = [point(arm="a"), point(arm="a", load=Load("x4", concurrent=4)), point(arm="b")]
    theirs = [point(arm="a"), point(arm="c")]
    assert [(a.arm.name, a.load.name) for a, _ in matched(ours, theirs)] == [("a", "x2")]


def verdict(bar: str, *points: Point, baseline: list[Point] | None = None) -> list[str]:
    found = gate.check(gate.read(bar), points, baseline or [], {"e2e": 2000.0})
    return [one.verdict for one in found]


def test_bars_between_arms_of_one_run() -> None:
    both = noisy(1.0), noisy(1.2, seed=5, arm="vote[paths=8]")
    assert verdict("e2e_p50 vote[paths=8]/plain <= 1.5", *both) == ["holds"]
    assert verdict("e2e_p50 vote[paths=8]/plain <= 1.01 @ x2", *both) == ["fails"]
    assert verdict("goals_met plain/vote[paths=8] >= 0.9", *both) == ["holds"]


def test_a_bar_inside_the_interval_is_open() -> None:
    both = noisy(1.0, 20, 0), noisy(1.0, 20, 4, "other")
    value = ratio(both[0], both[1], metric("e2e_p50", {}, [])).ratio
    assert value is not None
    for bound in (value - 0.001, value + 0.001):
        assert verdict(f"e2e_p50 plain/other <= {bound:.4f}", *both) == ["open"]


def test_rates_are_held_against_each_other() -> None:
    """The same requests in ten seconds and in twenty."""
    quick, slow = noisy(1.0), noisy(1.0, arm="slow")
    slow.seconds = 20.0
    for name in ("goodput", "requests_per_s", "generated_tokens_per_s"):
        half = ratio(slow, quick, metric(name, {}, []))
        assert (half.ratio, half.low, half.high) == pytest.approx((0.5, 0.5, 0.5))
    assert verdict("goodput slow/plain >= 0.4", quick, slow) == ["holds"]


def test_nothing_is_once_nothing() -> None:
    some = point(record(0), failed(1), arm="some")
    none, other = point(record(0), record(1)), point(record(0), record(1), arm="other")
    assert verdict("failed other/plain <= 1", none, other) == ["holds"]
    assert verdict("failed some/plain <= 9", none, some)[0] != "holds"
    assert verdict("failed some/plain >= 9", none, some)[0] != "fails"


def test_bars_against_a_baseline() -> None:
    slower = [noisy(1.0, seed=9)]
    assert verdict("e2e_p50 plain <= 1.1", noisy(2.0), baseline=slower) == ["fails"]
    assert verdict("e2e_p50 plain <= 1.3", noisy(1.0), baseline=slower) == ["holds"]


def test_a_bar_that_speaks_of_nothing_is_a_fault() -> None:
    with pytest.raises(ValueError, match="no such arms"):
        verdict("e2e_p50 a/b <= 1", noisy(1.0))
    with pytest.raises(ValueError, match="METRIC"):
        gate.read("e2e_p50 < 3")
    with pytest.raises(ValueError, match="latency"):
        verdict("latency plain/plain <= 1", noisy(1.0))


def test_what_fails_altogether_fails_the_bar() -> None:
    assert verdict("e2e_p50 a/plain <= 9", point(failed(0), arm="a"), noisy(1.0)) == ["fails"]
