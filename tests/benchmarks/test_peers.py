"""What the comparison of votes makes of what it heard; running it takes gateways and time."""

import json

from benchmarks import peers
from clients.eval.core.questions import Question

QUESTIONS = [Question(str(i), f"t{i}", 1, "What?", "4") for i in range(8)]


def heard(right: list[float], seconds: float, generated: float, claimed: float) -> peers.Heard:
    n = len(right)
    return peers.Heard(right, [seconds] * n, [claimed] * n, 0, generated)


def test_rows_hold_a_voter_against_ours_in_its_own_round() -> None:
    other = "its_hub, 8"
    found = {
        (peers.OURS, 1): [heard([1, 1, 1, 0], 1.0, 400, 90), heard([1] * 4, 3.0, 400, 90)],
        (other, 1): [heard([1, 1, 0, 0], 2.0, 800, 200), heard([1] * 4, 6.0, 800, 200)],
    }
    ours, theirs = peers.compared(found, QUESTIONS)
    assert [one["time_over_ours"]["value"] for one in (ours, theirs)] == [1, 2]
    assert (ours["generated"], theirs["claimed"]) == (100, 200)
    assert theirs["accuracy"]["value"] == 0.75 and theirs["n"] == 8
    checks = peers.verdicts({
        "rows": [ours, theirs],
        "vanished": {
            peers.PLAIN: {"tokens": 0.0}, peers.OURS: {"tokens": 9.0}, other: {"tokens": 900.0},
        },
    })  # fmt: skip
    # Eight questions cannot tell that ours is no less often right; usage is what `heard` was given.
    assert [held for _, held in checks] == [False, False, True]
    assert theirs["behind"]["value"] == 0.125 and theirs["behind"]["low"] < -peers.MARGIN
    assert theirs["p95_over_ours"] == {"value": 2, "low": 2, "high": 2}


def test_ours_must_be_fewer_tokens_sooner_and_no_less_right() -> None:
    questions = [Question(str(i), f"t{i % 8}", 1, "What?", "4") for i in range(160)]
    other = "its_hub, 8"

    def held(right: list[float], seconds: float = 1.0, generated: float = 400) -> bool:
        mine = [heard(right[at::8], seconds, generated, 1) for at in range(8)]
        theirs = [heard([1.0] * 20, 2.0, 800, 1)] * 8
        rows = peers.compared({(peers.OURS, 1): mine, (other, 1): theirs}, questions)
        vanished = {name: {"tokens": 0.0} for name in (peers.OURS, other)}
        return peers.verdicts({"rows": rows, "vanished": vanished})[0][1]

    assert held([1.0] * 160)
    assert not held([0.0] * 8 + [1.0] * 152)
    assert not held([1.0] * 160, seconds=2.5)
    assert not held([1.0] * 160, generated=800)


def test_rounds_part_the_questions() -> None:
    parts = peers.parted(QUESTIONS, 3)
    assert [len(part) for part in parts] == [3, 3, 2]
    assert sorted(one.id for part in parts for one in part) == [one.id for one in QUESTIONS]


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


def test_the_middle_of_few_factors_is_bounded_by_them() -> None:
    found = peers.middle([3.0, 1.0, 2.0])
    assert found == {"value": 2.0, "low": 1.0, "high": 3.0}
