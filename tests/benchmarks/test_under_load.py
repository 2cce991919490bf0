"""What the soak and the overload make of what they saw; running them takes a server and time."""

from typing import Any

import numpy as np
import pytest

from benchmarks import capacity, overload, soak
from tests.clients.bench.records import failed, point, record

GOALS = {"e2e": 1000.0}


def test_memory_that_grows_is_told_from_noise() -> None:
    rng, times = np.random.default_rng(0), np.arange(0, 1200, 5.0)
    flat = [(float(t), 700 + float(rng.normal(0, 3))) for t in times]
    grown = [(float(t), float(700 + t / 60 + rng.normal(0, 3))) for t in times]
    assert soak.slope(flat)[1] < 0 < soak.slope(flat)[2]
    value, low, high = soak.slope(grown)
    assert 0 < low < 60 < high
    assert value == pytest.approx(60, abs=12)


def asked(kind: str, **answer: Any) -> dict[str, Any]:
    wanted: dict[str, Any] = {"body": {}}
    if kind == "wrong":
        wanted["wrong"] = True
    if kind == "vanishing":
        wanted["vanish_s"] = 0.1
    return {"index": 0, "sent": 0.0, "took": 1.0, "asked": wanted, **answer}


def test_endings_are_sorted_by_what_was_meant() -> None:
    found = soak.counted(
        [
            asked("calm", status=200),
            asked("vanishing", error="vanished"),
            asked("vanishing", status=200),
            asked("wrong", status=400, error="http 400"),
            asked("wrong", status=200),
            asked("calm", status=503, error="http 503"),
            asked("calm", status=500, error="http 500"),
            asked("calm", error="timeout"),
        ],
        [{"status": 200}, {"status": 500}],
    )
    assert (found["answered"], found["vanished"], found["refused"]) == (3, 1, 1)
    assert (found["wrong"], found["wrong_as_4xx"]) == (2, 1)
    assert found["unexpected"] == ["http 500", "timeout"]
    whole = {
        **found, "idle_after_s": 0.1,
        "tokens": {"booked": 990.0, "counted": 1000.0, "aborted": 5.0},
        "server_mb_per_hour": (1.0, -2.0, 4.0), "engines_mb_per_hour": (9.0, 2.0, 16.0),
    }  # fmt: skip
    assert [held for _, held in soak.verdicts(whole)] == [
        False, False, False, True, False, True, True,
    ]  # fmt: skip


def test_a_mix_is_drawn_from_its_seed_and_has_all_kinds() -> None:
    first, again = soak.Mix(3), soak.Mix(3)
    drawn = [first.request() for _ in range(400)]
    assert drawn == [again.request() for _ in range(400)]
    bodies = [one["body"] for one in drawn if not one.get("wrong")]
    assert len({(one["model"], str(one["decoding"])) for one in bodies}) == len(soak.KINDS)
    assert 20 < sum("vanish_s" in one for one in drawn) < 65
    assert not any(one.keys() - {"body"} for one in (first.request(calm=True) for _ in range(50)))


def test_overload_holds_goodput_against_its_maximum() -> None:
    light = overload.row(1.0, point(*(record(i) for i in range(20))), 3, [], GOALS)
    heavy_point = point(*(record(i) for i in range(19)), *(failed(i) for i in range(19, 60)))
    heavy = overload.row(3.0, heavy_point, 64, [0.004] * 40 + [0.05], GOALS)
    assert (heavy["answered"], heavy["refused"], heavy["other"]) == (19, 41, 0)
    assert heavy["goodput_low"] < heavy["goodput"] < heavy["goodput_high"]
    checks = overload.verdicts([light, heavy])
    assert [held for _, held in checks] == [True, True, True, False, True, True]
    worse = overload.row(3.0, point(record(0), failed(1)), 65, [0.2], GOALS)
    assert [held for _, held in overload.verdicts([light, worse])] == [
        True, False, False, False, True, False,
    ]  # fmt: skip


def test_a_load_that_nothing_was_refused_at_is_no_overload() -> None:
    light = overload.row(3.0, point(*(record(i) for i in range(20))), 3, [], GOALS)
    assert light["refusal_p95_ms"] is None
    assert [held for _, held in overload.verdicts([light])] == [
        False, True, False, True, True, True,
    ]  # fmt: skip


def test_capacity_leaves_out_the_start_and_the_lonely_last() -> None:
    ended = [0.1] * 5 + [1 + at / 10 for at in range(90)] + [30.0 + at for at in range(5)]
    assert capacity.steady(ended) == pytest.approx(10)
    assert capacity.steady(ended[::-1]) == capacity.steady(ended)


def test_capacity_is_of_a_loop_as_long_as_was_asked_for() -> None:
    sent: list[int] = []

    def loop(n: int) -> list[float]:
        sent.append(n)
        return [at / 20 for at in range(n)]

    assert capacity.capacity(loop, 4, 30.0) == pytest.approx(20)
    assert capacity.capacity(loop, 4, 0.1) == pytest.approx(20)
    assert sent == [16, 600, 16, 16]
