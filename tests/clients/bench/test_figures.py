"""What the records of a point add up to, counted by hand."""

import httpx
import pytest

from clients.bench import counters, goals
from clients.bench.figures import RATES, figures, metric
from tests.clients.bench.records import failed, point, record


def test_failures_miss_every_goal_and_have_no_times() -> None:
    slow = record(2, took=2.0)
    found = figures(point(record(0), record(1), slow, failed(3)), {"e2e": 1000.0})
    assert (found["n"], found["failed"]) == (4, 1)
    assert found["goals_met"] == 0.5
    assert found["goodput"] == pytest.approx(0.2)
    assert found["requests_per_s"] == pytest.approx(0.3)
    assert found["e2e_p50"] == pytest.approx(600)
    assert found["e2e_p99"] == pytest.approx(600 + 0.98 * 1400)
    assert (found["ttft_p50"], found["ttfa_p50"]) == pytest.approx((100, 300))


def test_costs_are_what_the_server_says() -> None:
    found = figures(point(record(0), record(1, decoding={"branches": 5})), {})
    assert found["generated_tokens"] == 8
    assert found["shown_tokens"] == 5
    assert found["monitor_calls"] == 2
    assert found["branches"] == 4
    assert found["generated_tokens_per_s"] == pytest.approx(1.6)


def test_a_vote_that_ended_early_is_counted() -> None:
    early = record(0, decoding={"branches": 8, "counted": 5})
    whole = record(1, decoding={"branches": 8, "counted": 8})
    assert figures(point(early, whole), {})["stopped_early"] == 0.5


def test_the_server_s_counters_are_means_of_a_stretch() -> None:
    text = (
        "# TYPE satisfice_monitor_seconds histogram\n"
        'satisfice_monitor_seconds_sum{monitor="a"} 1.5\n'
        'satisfice_monitor_seconds_sum{monitor="b"} 0.5\n'
        'satisfice_monitor_seconds_count{monitor="b"} 9.0\n'
    )
    after = counters.read(text)
    for before, then, means in (
        ({}, after, {"monitor_ms": 500}),
        (after, after, {"monitor_ms": 0}),
        ({}, counters.read("other_total 3\n"), {}),
    ):
        came = counters.between(before, then)
        assert came is not None
        assert counters.figures(came, 4) == means


def test_counters_that_cannot_be_had_are_not_nothing() -> None:
    answers = [
        httpx.Response(200, text="satisfice_queue_wait_seconds_sum 3.0\n"),
        httpx.Response(503),
        httpx.Response(200, text="{no metrics"),
    ]
    with httpx.Client(transport=httpx.MockTransport(lambda _: answers.pop(0))) as http:
        known, *unknown = (counters.counted(http, "http://x") for _ in range(3))
    assert known is not None
    assert unknown == [None, None]
    assert counters.between(None, known) is None
    assert counters.between(known, None) is None


def test_how_well_costs_were_foreseen_is_a_median_over_strategies() -> None:
    text = "".join(
        f'satisfice_cost_error_bucket{{strategy="{name}",le="{bound}"}} {below}\n'
        for name, counts in (("a", (1, 3, 4)), ("b", (1, 3, 6)))
        for bound, below in zip(("0.1", "0.3", "+Inf"), counts, strict=True)
    )
    # Two of ten lie below 0.1, four evenly between 0.1 and 0.3.
    assert counters.figures(counters.read(text), 1) == {"cost_error": pytest.approx(0.25)}
    assert counters.median({0.1: 1.0, float("inf"): 4.0}) == 0.1
    assert counters.median({0.1: 0.0, float("inf"): 0.0}) is None


def test_accuracy_counts_failures_as_wrong() -> None:
    from dataclasses import replace

    wrong = replace(failed(3), right=False)
    found = figures(point(record(0, right=True), record(1, right=True), wrong), {})
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["accuracy_low"] < 2 / 3 < found["accuracy_high"]
    assert "accuracy" not in figures(point(record()), {})


def test_an_estimate_is_held_against_what_was_generated() -> None:
    found = figures(point(*(record(i, predicted=p) for i, p in enumerate((6.0, 8.0, 12.0)))), {})
    assert found["estimate_error"] == pytest.approx(0.25)
    assert found["estimate_over_real"] == pytest.approx(26 / 24)


def test_a_pace_is_held_against_the_time_of_each_answer() -> None:
    found = figures(point(*(record(i, took=took) for i, took in enumerate((1.0, 2.0, 4.0)))), {})
    assert found["pace_error"] == pytest.approx(0.5)
    assert "pace_error" not in figures(point(failed(0)), {})


def test_nothing_measured_has_figures_all_the_same() -> None:
    found = figures(point(failed(0), failed(1)), {})
    assert found["e2e_p50"] is None
    assert (found["goodput"], found["failed"]) == (0, 2)


def test_a_metric_is_the_figure_of_its_name() -> None:
    asked, bounds = point(record(0), record(1, took=1.5), failed(2)), {"e2e": 1000.0}
    whole = figures(asked, bounds)
    names = ("e2e_p50", "e2e_p99", "itl_p90", "goals_met", "branches", "generated_tokens", *RATES)
    for name in names:
        assert metric(name, bounds, [asked]).value(asked) == pytest.approx(whole[name]), name


def test_a_name_that_nothing_has_is_no_metric() -> None:
    for name in ("e2e_p999", "e2e", "goodputt", "queue_ms", "estimate_error"):
        with pytest.raises(ValueError, match=name):
            metric(name, {}, [point(record(0))])
    nothing = metric("generated_tokens", {}, [point(failed(0))])
    assert nothing.value(point(failed(0))) is None


def test_prompts_that_are_asked_again_make_no_accuracy_surer() -> None:
    once = figures(point(*(record(i, right=True) for i in range(6))), {})
    again = [record(i % 6, right=True) for i in range(18)]
    assert figures(point(*again), {})["accuracy_low"] == once["accuracy_low"]


def test_goals_are_named() -> None:
    assert goals.read("ttft=500,e2e=4000") == {"ttft": 500, "e2e": 4000}
    assert goals.read("") == {}
    with pytest.raises(ValueError, match="ttfx"):
        goals.read("ttfx=1")


def test_what_was_withheld_misses_every_goal() -> None:
    found = figures(point(record(0), record(1, decoding={"outcome": "refused"})), {"e2e": 1000.0})
    assert (found["failed"], found["refused"], found["goals_met"]) == (0, 1, 0.5)
    assert not goals.kept(record(decoding={"outcome": "refused"}), {})


def test_what_never_came_misses_its_goal() -> None:
    """An answer that is all thinking is late however long one waits."""
    thought = record(content=(), finish="length")
    assert goals.kept(thought, {"ttft": 1000.0})
    assert not goals.kept(thought, {"ttfa": 1000.0})
    assert not goals.kept(record(content=(), reasoning=()), {"ttft": 1000.0})
    # Of one token, there is no time between two.
    assert goals.kept(record(content=(0.3,), reasoning=()), {"ttfa": 1000.0, "tpot": 1.0})
