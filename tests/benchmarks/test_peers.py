"""What the comparison of votes makes of what it heard; running it takes gateways and time."""

import json
from typing import Any

import httpx
import pytest
from rich.console import Console

from benchmarks import peers
from benchmarks.medians import middle
from benchmarks.voters import Voter
from clients.eval.core.questions import Question

QUESTIONS = [Question(str(i), f"t{i}", 1, "What?", "4") for i in range(24)]


def heard(
    right: list[float], seconds: float, generated: float, claimed: float, failed: int = 0
) -> peers.Heard:
    n = len(right)
    return peers.Heard(right, [seconds] * (n - failed), [claimed] * n, failed, generated)


def left(tokens: float) -> dict[str, Any]:
    return {"tokens": middle([tokens] * 6), "idle_s": middle([0.1] * 6)}


def test_rows_hold_a_voter_against_ours_in_its_own_round() -> None:
    other = "its_hub, 8"
    ours_right, right = [1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]
    found = {
        (peers.OURS, 1): [heard(ours_right, at, 400, 90) for at in (1, 3, 1, 1, 1, 1)],
        (other, 1): [heard(right, at, 800, 200) for at in (2, 6, 3, 1.5, 2, 2)],
    }
    ours, theirs = peers.compared(found, QUESTIONS)
    assert ours["time_over_ours"] == {"value": 1, "low": 1, "high": 1, "n": 6}
    assert theirs["time_over_ours"] == {"value": 2, "low": 1.5, "high": 3, "n": 6}
    assert (ours["generated"], theirs["claimed"]) == (100, 200)
    assert theirs["accuracy"]["value"] == 0.5 and theirs["n"] == 24
    vanished = {peers.PLAIN: left(0), peers.OURS: left(9), other: left(900)}
    checks = peers.verdicts({"rows": [ours, theirs], "vanished": vanished})
    # Usage is 90 of 100 tokens, as `heard` was given.
    assert [held for _, held in checks] == [True, False, True]
    assert theirs["behind"]["value"] == 0.25
    assert theirs["p95_over_ours"]["value"] == 2
    vanished[other]["tokens"] = middle([0.0] + [900.0] * 5)
    assert not peers.verdicts({"rows": [ours, theirs], "vanished": vanished})[-1][1]


def test_who_fails_is_timed_by_answers_and_not_beaten() -> None:
    other = "its_hub, 8"
    questions = [Question(str(i), f"t{i % 8}", 1, "What?", "4") for i in range(120)]

    def rows(failed: int) -> list[dict[str, Any]]:
        theirs = heard([1.0] * (20 - failed) + [0.0] * failed, 2.0, 800, 1, failed)
        ours = heard([1.0] * 20, 1.0, 400, 100)
        return peers.compared({(peers.OURS, 1): [ours] * 6, (other, 1): [theirs] * 6}, questions)

    def told(failed: int) -> tuple[str, bool]:
        vanished = {name: left(0) for name in (peers.OURS, other)}
        return peers.verdicts({"rows": rows(failed), "vanished": vanished})[0]

    assert (rows(1)[1]["failed"], rows(1)[1]["median_s"]) == (6, 2.0)
    assert told(0)[1] and told(0)[0].endswith("n 120, 0 failed")
    assert not told(1)[1] and told(1)[0].endswith("n 120, 6 failed")


async def test_a_voter_that_answers_nothing_ends_the_comparison(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def at_once(voter: Voter) -> float:
        return 0.0

    monkeypatch.setattr(peers, "idle", at_once)
    monkeypatch.setattr(Voter, "generated", lambda self: 0.0)
    refusing = httpx.MockTransport(lambda request: httpx.Response(503))
    async with httpx.AsyncClient(transport=refusing) as client:
        voter = Voter("its_hub, 8", "http://peer", "m", "http://peer", 8)
        with pytest.raises(RuntimeError, match="its_hub, 8 answered nothing"):
            await peers.sides(
                peers.Asking(client), [voter], QUESTIONS, 6, [1], Console(quiet=True)
            )  # fmt: skip


def test_ours_must_be_fewer_tokens_sooner_and_no_less_right() -> None:
    questions = [Question(str(i), f"t{i % 8}", 1, "What?", "4") for i in range(160)]
    other = "its_hub, 8"

    def held(right: list[float], seconds: float = 1.0, generated: float = 400) -> bool:
        mine = [heard(right[at::8], seconds, generated, 1) for at in range(8)]
        theirs = [heard([1.0] * 20, 2.0, 800, 1)] * 8
        rows = peers.compared({(peers.OURS, 1): mine, (other, 1): theirs}, questions)
        vanished = {name: left(0) for name in (peers.OURS, other)}
        return peers.verdicts({"rows": rows, "vanished": vanished})[0][1]

    assert held([1.0] * 160)
    assert not held([0.0] * 8 + [1.0] * 152)
    assert not held([1.0] * 160, seconds=2.5)
    assert not held([1.0] * 160, generated=800)


def test_rounds_part_the_questions() -> None:
    parts = peers.parted(QUESTIONS, 3)
    assert [len(part) for part in parts] == [8, 8, 8]
    assert {one.id for part in parts for one in part} == {one.id for one in QUESTIONS}


def test_a_request_that_failed_says_nothing() -> None:
    assert peers.said({}) == "" and peers.said({"choices": []}) == ""
    assert peers.said({"choices": [{"message": {"content": None}}]}) == ""
    assert peers.said({"choices": [{"message": {"content": "4"}}]}) == "4"


def test_usage_is_what_was_spent_where_a_server_says_so() -> None:
    assert peers.claimed({"completion_tokens": 5, "decoding": {"generated_tokens": 40}}) == 40
    assert peers.claimed({"completion_tokens": 5}) == 5
    assert peers.claimed({}) == 0


def test_a_sign_of_life_is_text_or_an_event() -> None:
    def line(**choice: object) -> str:
        return "data: " + json.dumps({"choices": [{"index": 0, **choice}]})

    assert peers.says(line(delta={"content": "4"}))
    assert peers.says(line(delta={"reasoning": "so"}))
    assert peers.says(line(delta={}, decoding={"event": {"kind": "path"}}))
    assert not peers.says(line(delta={"role": "assistant", "content": ""}))
    assert not peers.says('data: {"choices": []}')
    assert not peers.says("data: [DONE]") and not peers.says(": keep-alive")
