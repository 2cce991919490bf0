"""Intervals and tests against known values and against what they promise: coverage."""

import numpy as np
import pytest
from scipy.stats import binomtest, chi2, mannwhitneyu, poisson

from clients.eval.core.statistics import (
    auroc,
    difference,
    holm,
    mean,
    poisson_limit,
    poisson_tail,
    ratio,
    reduction,
    wilson,
)


def test_wilson_equals_scipys() -> None:
    for successes, n in [(0, 10), (10, 10), (3, 17), (250, 600)]:
        ours = wilson(successes, n)
        theirs = binomtest(successes, n).proportion_ci(method="wilson")
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        assert ours.value == successes / n
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"only": 0.8}) == {"only": 0.8}
    assert holm({}) == {}


def drawn(rng: np.random.Generator, effect: float) -> tuple[list[float], list[str]]:
    """24 clusters of 25 questions whose true mean differs by cluster around `effect`."""
    values, clusters = [], []
    for cluster in range(24):
        level = effect + rng.normal(0, 0.2)
        values += (level + rng.normal(0, 0.5, 25)).tolist()
        clusters += [f"c{cluster}"] * 25
    return values, clusters


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for i in range(60):
        found = mean(*drawn(rng, 0.3), seed=i)
        covered += found.low <= 0.3 <= found.high
    assert covered >= 51, "95% intervals over 60 draws"


def test_clusters_widen_the_interval() -> None:
    values, clusters = drawn(np.random.default_rng(2), 0.0)
    by_cluster = mean(values, clusters)
    by_question = mean(values, [str(i) for i in range(len(values))])
    assert by_cluster.high - by_cluster.low > 1.3 * (by_question.high - by_question.low)


def test_a_paired_difference_sees_what_single_means_do_not() -> None:
    rng = np.random.default_rng(3)
    theirs, clusters = drawn(rng, 0.0)
    ours = [value + 0.05 + rng.normal(0, 0.05) for value in theirs]
    paired = difference(ours, theirs, clusters)
    assert paired.value == pytest.approx(0.05, abs=0.01)
    assert paired.p is not None
    assert paired.p < 0.001
    assert mean(ours, clusters).low < mean(theirs, clusters).high


def test_no_difference_is_found_where_there_is_none() -> None:
    rng = np.random.default_rng(4)
    low = 0
    for i in range(40):
        values, clusters = drawn(rng, 0.0)
        p = difference(values, [0.0] * len(values), clusters, seed=i).p
        assert p is not None
        low += p < 0.05
    assert low <= 7
    same = difference([1.0, 0.0], [1.0, 0.0], ["a", "b"])
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_ratio_is_of_sums() -> None:
    found = ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], ["a", "b", "c"])
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_same_seed_gives_the_same_interval() -> None:
    values, clusters = drawn(np.random.default_rng(5), 0.0)
    assert mean(values, clusters, seed=1) == mean(values, clusters, seed=1)
    assert mean(values, clusters, seed=1) != mean(values, clusters, seed=2)


def test_values_need_their_clusters() -> None:
    with pytest.raises(ValueError, match="one cluster"):
        mean([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="one cluster"):
        mean([], [])


def test_a_difference_is_tested_at_a_margin() -> None:
    ours, clusters = [1.0] * 990 + [0.0] * 10, [f"c{i % 48}" for i in range(1000)]
    found = difference(ours, [1.0] * 1000, clusters, null=-0.02)
    assert found.value == pytest.approx(-0.01)
    assert found.p is not None
    assert found.p < 0.05
    worse = difference([1.0] * 980 + [0.0] * 20, [1.0] * 1000, clusters, null=-0.02).p
    assert worse is not None
    assert worse > 0.5


def test_poissons_equal_scipys() -> None:
    for count in (0, 1, 5, 57, 1000):
        assert poisson_limit(count) == pytest.approx(chi2.ppf(0.975, 2 * count + 2) / 2)
        tail = poisson_tail(count, 1.2 * count + 1)
        assert tail == pytest.approx(poisson.cdf(count, 1.2 * count + 1))


def rare(before: int, after: int) -> tuple[list[float], list[float], list[str]]:
    """1000 requests in 48 wrappers, so many events first and so many left."""
    first = [float(i < before) for i in range(1000)]
    return first, [float(i < after) for i in range(1000)], [f"w{i % 48}" for i in range(1000)]


def test_a_reduction_is_the_ratio_of_shares() -> None:
    found = reduction(*rare(600, 40), least=8)
    assert found.value == 15
    assert 9 < found.low < 12
    assert 16 < found.high < 25
    assert found.p is not None
    assert found.p < 0.01
    none = reduction(*rare(600, 100), least=8)
    assert none.low < none.value == 6
    assert none.p == 1.0


def test_a_reduction_to_nothing_is_bounded() -> None:
    for after, limit in [(0, 3.689), (1, 5.572)]:
        found = reduction(*rare(600, after), least=8)
        assert found.low == pytest.approx(600 / limit, rel=1e-3)
        assert found.low < found.value <= found.high < float("inf")
    few = reduction(*rare(20, 0), least=8)
    assert few.low < 8, "twenty attacks say too little"
    assert few.p is not None
    assert few.p > 0.05


def test_a_reductions_low_bound_holds_as_often_as_it_says() -> None:
    """The true ratio is 10 (0.6 to 0.06), differently so in each wrapper."""
    rng = np.random.default_rng(6)
    clusters = [f"w{i % 48}" for i in range(1000)]
    above = 0
    for i in range(60):
        level = np.repeat(rng.uniform(0.5, 1.5, 48)[None], 21, 0).ravel()[:1000]
        before = (rng.random(1000) < 0.6).astype(float)
        after = (rng.random(1000) < 0.06 * level).astype(float)
        above += reduction(before.tolist(), after.tolist(), clusters, seed=i).low > 10
    assert above <= 5


def test_auroc_equals_scipys() -> None:
    rng = np.random.default_rng(7)
    high, low = rng.integers(0, 9, 80) + 2.0, rng.integers(0, 9, 120) + 0.0
    found = auroc(high.tolist(), low.tolist())
    assert found.value == pytest.approx(mannwhitneyu(high, low).statistic / (80 * 120))
    assert found.low < found.value < found.high
    assert auroc([1.0, 2.0], [0.0]).low == 1.0
