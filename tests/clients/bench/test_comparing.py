"""Two runs against each other, and bars for CI."""

from collections.abc import Callable

import numpy as np
import pytest

from clients.bench import comparing, gate
from clients.bench.comparing import matched, over_first, ratio
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


def closed(mean: float, seed: int, n: int = 60, arm: str = "plain") -> Point:
    """Four clients, each of which asks again once answered."""
    free, records = [0.0] * 4, []
    for i, took in enumerate(np.random.default_rng(seed).gamma(4, mean / 4, n)):
        sent = min(free)
        free[free.index(sent)] = sent + took
        records.append(record(i, sent=sent, took=float(took)))
    found = point(*records, arm=arm, load=Load("x4", concurrent=4))
    found.seconds = max(free)
    return found


def opened(rate: float, seed: int, rounds: int = 1, n: int = 60) -> Point:
    """Arrivals that wait for no answer, n within n / rate, where four answers a second can be."""
    rng, found = np.random.default_rng(seed), point(load=Load(f"{rate:g}/s", rate=rate))
    found.seconds = 0.0
    for turn in range(rounds):
        gaps, done, records = rng.exponential(size=n), 0.0, []
        for i, sent in enumerate(np.cumsum(gaps) * n / rate / gaps.sum()):
            done = max(done, float(sent)) + float(rng.gamma(4, 1 / 16))
            records.append(record(i, sent=float(sent), took=done - float(sent), round=turn))
        found.records += records
        found.seconds += done - records[0].sent
    return found


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda seed: closed(1.0, seed), "requests_per_s"),
        (lambda seed: closed(1.0, seed), "goodput"),
        (lambda seed: opened(2.0, seed), "requests_per_s"),
        (lambda seed: opened(8.0, seed), "requests_per_s"),
        (lambda seed: opened(2.0, seed), "goodput"),
        (lambda seed: opened(3.6, seed, 6, 30), "goodput"),
    ],
    ids=["closed", "closed, goals", "open", "too much", "open, goals", "nearly too much, rounds"],
)
def test_rates_of_equal_runs_are_seldom_apart(
    run: Callable[[int], Point], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty pairs whose rates are equal but for chance: about three may be apart."""
    monkeypatch.setattr(comparing, "RESAMPLES", 400)
    rate = metric(name, {"e2e": 1000.0}, [])
    found = [ratio(run(2 * seed), run(2 * seed + 1), rate) for seed in range(60)]
    assert all(one.low != one.high for one in found)
    assert sum(one.apart for one in found) <= 8


def test_rates_are_held_against_each_other() -> None:
    """Clients that wait twice as long for each answer."""
    quick, slow = closed(1.0, 1), closed(2.0, 2, arm="slow")
    for name in ("goodput", "requests_per_s", "generated_tokens_per_s"):
        half = ratio(slow, quick, metric(name, {}, []))
        assert half.low is not None
        assert half.high is not None
        assert 0.35 < half.low < 0.5 < half.high < 0.7
    assert verdict("requests_per_s slow/plain >= 0.3", quick, slow) == ["holds"]
    assert verdict("requests_per_s slow/plain >= 0.8", quick, slow) == ["fails"]


def asked_again(mean: float, prompts: int, seed: int, n: int = 64) -> Point:
    took = np.random.default_rng(seed).gamma(20, mean / 20, n)
    ones = (record(i, prompt=f"p{i % prompts}", took=float(t)) for i, t in enumerate(took))
    return point(*ones)


@pytest.mark.parametrize("prompts", [1, 2, 4])
def test_few_prompts_make_nothing_sure(prompts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too few to be drawn, single requests are; equal runs are seldom apart."""
    monkeypatch.setattr(comparing, "RESAMPLES", 400)
    e2e, apart = metric("e2e_p50", {}, []), 0
    for seed in range(40):
        ours, theirs = (asked_again(1.0, prompts, 2 * seed + i) for i in (0, 1))
        found = ratio(ours, theirs, e2e, seed)
        assert found.low is not None
        assert found.high is not None
        assert found.high - found.low > 0.02
        apart += found.apart
    assert apart <= 6


def test_what_has_too_little_for_an_interval_is_open() -> None:
    few = noisy(1.0, 4), noisy(2.0, 4, 1, "other")
    found = ratio(few[1], few[0], metric("e2e_p50", {}, []))
    assert (found.low, found.high) == (None, None)
    assert found.ratio is not None
    assert verdict("e2e_p50 other/plain >= 1.1", *few) == ["open"]
    # Neither do many requests of which few were answered tell more.
    answered = point(*(record(i) if i < 4 else failed(i) for i in range(60)), arm="other")
    assert verdict("e2e_p50 other/plain <= 9", noisy(1.0), answered) == ["open"]


def test_every_arm_is_held_against_the_first_under_its_load() -> None:
    loads = [Load("x2", concurrent=2), Load("x4", concurrent=4)]
    means = {"plain": 1.0, "vote": 2.0}
    points = [noisy(means[arm] + load.level, arm=arm) for load in loads for arm in means]
    for one, load in zip(points, (loads[0], loads[0], loads[1], loads[1]), strict=True):
        one.load = load
    alone = noisy(1.0, arm="vote")
    alone.load = Load("x8", concurrent=8)
    base, vote, other_base, other, missing = over_first([*points, alone], metric("e2e_p50", {}, []))
    for itself in (base, other_base):
        assert itself is not None
        assert (itself.ratio, itself.low) == (1, None)
    assert vote is not None
    assert vote.ratio == pytest.approx(4 / 3)
    assert other is not None
    assert other.ratio == pytest.approx(6 / 5)
    assert missing is None


def test_nothing_is_once_nothing() -> None:
    some = point(*map(record, range(4)), failed(4), arm="some")
    none, other = point(*map(record, range(5))), point(*map(record, range(5)), arm="other")
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
