"""What the comparison of votes with plain requests makes of its seconds."""

import json

import httpx
import pytest

from benchmarks import votes
from benchmarks.peers import Asking, Heard
from benchmarks.voters import Voter, own
from clients.eval.core.questions import Question

QUESTION = Question("0", "t", 1, "What is 2 + 2?", "4")


def took(vote: float, slowest: float, event: float) -> votes.Took:
    return {
        "vote": vote, "full vote": 2 * vote, "slowest": slowest, "first event": event,
        "first token": 0.1,
    }  # fmt: skip


def test_ratios_are_taken_within_a_question() -> None:
    ratios = votes.compared([took(1, 2, 0.05), took(10, 4, 0.3), *[took(3, 3, 0.1)] * 4])
    assert ratios["vote / slowest of eight"] == {"value": 1, "low": 0.5, "high": 2.5, "n": 6}
    assert ratios["full vote / slowest of eight"]["value"] == 2
    assert ratios["first event / first token"]["high"] == pytest.approx(3)
    assert [held for _, held in votes.verdicts(ratios)] == [True, True]
    worse = votes.compared([took(1.4, 1, 0.3)] * 6)
    assert [held for _, held in votes.verdicts(worse)] == [False, False]


async def test_arms_ask_with_seeds_of_their_question_alone() -> None:
    asked: list[dict[str, object]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(200, json={"choices": [{"message": {"content": "4"}}]})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        url = "http://server"
        vote, plain = Voter("vote", url, "m", url, 8, own(8)), Voter("plain", url, "m", url, 1)
        arms = votes.Race(Asking(client), vote, plain, QUESTION, 7000).arms()
        for name in ("vote", "full vote", "slowest"):
            await arms[name]()
    assert sorted(str(one["seed"]) for one in asked[2:]) == [str(7000 + at) for at in range(8)]
    assert not any("decoding" in one for one in asked[2:])
    first, full = (one["decoding"] for one in asked[:2])
    assert first == own(8)["decoding"]
    assert full == {"strategy": "parallel_thinking", "params": {"paths": 8, "early_stop": False}}


async def test_a_request_that_failed_ends_the_comparison() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(503, json={"error": {}}))
    async with httpx.AsyncClient(transport=transport) as client:
        plain = Voter("plain", "http://server", "m", "http://server", 1)
        with pytest.raises(RuntimeError, match="plain failed"):
            await votes.Race(Asking(client), plain, plain, QUESTION, 0).whole(plain)
        heard = Heard()
        await Asking(client).ask(plain, QUESTION, heard)
    assert (heard.failed, heard.right, heard.claimed) == (1, [0.0], [0.0])
    assert heard.seconds == []
