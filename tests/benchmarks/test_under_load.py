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


def test_growth_that_ends_shows_in_its_quarters() -> None:
    filling = [(float(t), 700 + min(30.0, t / 20)) for t in range(0, 1200, 5)]
    assert soak.gains(filling) == pytest.approx([14.75, 14.75, 0, 0])


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
        "tokens": {"booked": 990.0, "counted": 1000.0, "aborted": 5.0, "requests": 30.0,
                   "ended": 7.0},
        "n": 8,
        "server_mb_per_hour": (1.0, -2.0, 4.0), "engines_mb_per_hour": (9.0, 2.0, 16.0),
    }  # fmt: skip
    assert [held for _, held in soak.verdicts(whole)] == [
        False, False, False, True, False, True, True, True,
    ]  # fmt: skip
    for ended in (6.0, 9.0):  # one client alone vanished
        told = soak.verdicts({**whole, "tokens": {**whole["tokens"], "ended": ended}})
        assert [held for _, held in told][5:] == [False, True, True]


def test_a_mix_is_drawn_from_its_seed_and_has_all_kinds() -> None:
    first, again = soak.Mix(3), soak.Mix(3)
    drawn = [first.request() for _ in range(400)]
    assert drawn == [again.request() for _ in range(400)]
    bodies = [one["body"] for one in drawn if not one.get("wrong")]
    assert len({(one["model"], str(one["decoding"])) for one in bodies}) == len(soak.KINDS)
    assert 20 < sum("vanish_s" in one for one in drawn) < 65
    assert 8 < sum("wrong" in one for one in drawn) < 40


def test_capacity_is_of_the_mix_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[dict[str, Any]] = []

    def sent(local: Any, sending: Any, requests: list[dict[str, Any]], **load: Any) -> Any:
        asked_for.extend(requests)
        endings: list[dict[str, Any]] = [{"status": 200}, {"status": 503, "error": "http 503"}]
        return [
            {"sent": 1.0 * at, "took": 0.5, "asked": one, **ending(one, endings[at % 2])}
            for at, one in enumerate(requests)
        ]

    def ending(one: dict[str, Any], calm: dict[str, Any]) -> dict[str, Any]:
        if one.get("wrong"):
            return {"status": 400, "error": "http 400"}
        return {"error": "vanished"} if "vanish_s" in one else calm

    monkeypatch.setattr(soak, "sent", sent)
    ended = soak.closed_loop(None, None, soak.Mix(3), 400)  # type: ignore[arg-type]
    mix = soak.Mix(3)
    assert asked_for == [mix.request() for _ in range(400)]
    light = {at for at, one in enumerate(asked_for) if one.keys() & {"wrong", "vanish_s"}}
    assert len(light) > 30
    # What got through: the light ones and the answers, but no refusal.
    assert ended == [at + 0.5 for at in range(400) if at in light or at % 2 == 0]


def test_overload_holds_goodput_against_its_maximum() -> None:
    light = overload.row(1.0, point(*(record(i) for i in range(20))), 3, [], GOALS)
    heavy_point = point(*(record(i) for i in range(19)), *(failed(i) for i in range(19, 60)))
    heavy = overload.row(3.0, heavy_point, 64, [0.004] * 40 + [0.05], GOALS)
    assert (heavy["answered"], heavy["refused"], heavy["other"]) == (19, 41, 0)
    assert heavy["goodput_low"] < heavy["goodput"] < heavy["goodput_high"]
    checks = overload.verdicts([light, heavy])
    assert [held for _, held in checks] == [True, True, True, False, True, True]
    assert checks[-1][0] == "goodput 0.95 [0.64, 1.58] of its maximum, n 60 and 20"
    broken = point(*(record(i, error="the stream broke") for i in range(2)), record(2), failed(3))
    cut = overload.row(1.0, broken, 3, [], GOALS)
    assert (cut["answered"], cut["refused"], cut["other"]) == (1, 1, 2)
    assert not overload.verdicts([cut, heavy])[4][1]
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
